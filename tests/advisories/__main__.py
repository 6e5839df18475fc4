"""Audits what our requirement files pin with pip-audit, against the advisories that the caller names."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.advisories.records import Advisories

ROOT = Path(__file__).parents[2]
SERVICES = ("osv", "pypi", "esms")
USAGE = """error: --audit needs a source of advisories, as an argument or in ADVISORIES:
  osv, pypi or esms       the public service of that name
  https://…/v1/query      a service that speaks OSV's API, such as a mirror
  a folder or .zip file   advisories in OSV's format, such as OSV's export for PyPI
"""


@contextlib.contextmanager
def serving(advisories: Advisories) -> Iterator[str]:
    """Serve advisories by OSV's API on loopback; yields the URL to query."""

    class Query(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = advisories.concerning(query["package"]["name"], query["version"])
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Query)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def audit(service: Sequence[str], files: Sequence[Path]) -> int:
    """Run pip-audit without installing anything; returns its exit status, 1 where something is vulnerable."""
    requirements = [option for file in files for option in ("-r", str(file))]
    with tempfile.TemporaryDirectory() as cache:
        # Answers of another source must not be taken for this one's.
        options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--cache-dir", cache]
        return subprocess.run([sys.executable, "-m", "pip_audit", *service, *options, *requirements]).returncode


def main(arguments: Sequence[str]) -> int:
    source, *more = [*arguments, ""]
    files = [Path(file) for file in more if file] or sorted(ROOT.glob("requirements*.txt"))
    if source in SERVICES:
        return audit(("-s", source), files)
    if source.startswith(("https://", "http://")):
        return audit(("-s", "osv", "--osv-url", source), files)
    if not source or not Path(source).exists():
        sys.stderr.write(USAGE)
        return 2
    try:
        advisories = Advisories.read(Path(source))
    except (ValueError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    with serving(advisories) as url:
        return audit(("-s", "osv", "--osv-url", url), files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
