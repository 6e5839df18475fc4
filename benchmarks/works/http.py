"""Governed HTTP calls through each proxy: small, different each time, larger, with bodies, with tokens."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import issuer
from benchmarks.loads import wrk
from benchmarks.loads.meter import Meter
from benchmarks.peers.servers import ANSWER, KEY, LARGE, POSTED_BYTES, Server
from benchmarks.place import Place, Run, Work, load
from benchmarks.sampling import OURS, Sample, WrongAnswer

PROXIES = ("Envoy", "nginx", "HAProxy", "Caddy")
GOVERNED = (
    "Over 64 keep-alive connections (wrk). apimgmt checks the key and the five limits of its tier, "
    "and meters the call; Envoy "
    "runs `api_key_auth` and `local_ratelimit`, nginx a key map and `limit_req`, HAProxy a key and a stick table of "
    "request rates, Caddy a key alone. The upstream counts the calls that reach it."
)
TRACED = """
local n = 0
request = function()
  n = n + 1
  wrk.headers["traceparent"] = string.format("00-%032x-%016x-01", n, n)
  return wrk.format()
end
"""
POSTED = """
wrk.method = "POST"
wrk.body = string.rep("x", SIZE)
wrk.headers["content-type"] = "text/plain"
"""
PACED_EACH_S = 2_000


def _entrants(place: Place, path: str, answer: str, script: str = "") -> dict[str, Run]:
    lua = _script(place, path, script)
    return {
        server.name: partial(_call, place, server, _url(server, server.port, path), _key(server), answer, lua)
        for server in place.servers(*PROXIES)
    }


def _with_token(place: Place) -> dict[str, Run]:
    headers = {"Authorization": f"Bearer {issuer.token('bench')}"}
    return {
        server.name: partial(
            _call, place, server, _url(server, server.token_port, "/quotes/ACME"), headers, ANSWER, None
        )
        for server in place.servers("Envoy", "HAProxy")
    }


def _added(place: Place) -> dict[str, Run]:
    upstream = place.upstreams.http_port

    def run(server: Server, seconds: float) -> Sample:
        paced = partial(load, "paced", key=server.key, answer=ANSWER, each_s=PACED_EACH_S, seconds=seconds)
        direct, through = (
            paced(port=upstream, path="/quotes/ACME"),
            paced(port=server.port, path=_path(server, "/quotes/ACME")),
        )
        return {
            "added_ms": through["p50_ms"] - direct["p50_ms"],
            "p50_ms": through["p50_ms"],
            "p99_ms": through["p99_ms"],
        }

    return {server.name: partial(run, server) for server in place.servers(*PROXIES)}


def _call(
    place: Place,
    server: Server,
    url: str,
    headers: Mapping[str, str],
    answer: str,
    script: str | None,
    seconds: float,
) -> Sample:
    """Run wrk; each of its calls must succeed, and reach the upstream."""
    if script is None:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=10) as reply:
            if reply.read().decode() != answer:
                raise WrongAnswer(f"{server.name} answers with another body")
    before = _upstream_calls(place)
    meter = Meter(server.pids)
    printed = wrk.run(url, headers, seconds, script)
    sample = meter.sample(max(1, printed.requests))
    reached = _upstream_calls(place) - before
    if printed.errors or reached < printed.requests:
        raise WrongAnswer(f"{server.name}: {printed.errors} of {printed.requests} calls failed, {reached} were proxied")
    return sample | {"per_s": printed.per_s, "p50_ms": printed.p50_ms, "p99_ms": printed.p99_ms}


def _upstream_calls(place: Place) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{place.upstreams.http_port}/status", timeout=10) as reply:
        return handled(reply.read().decode())


def handled(status: str) -> int:
    """Return how many requests nginx has handled, of what its ``stub_status`` says."""
    found = re.search(r"^ \d+ \d+ (\d+)", status, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"nginx has no stub_status:\n{status}")
    return int(found[1])


def _script(place: Place, path: str, script: str) -> str | None:
    if not script:
        return None
    file = place.folder / f"{path.strip('/').replace('/', '-')}.lua"
    file.write_text(script)
    return str(file)


def _key(server: Server) -> dict[str, str]:
    return {"X-API-Key": server.key or KEY}


def _url(server: Server, port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}{_path(server, path)}"


def _path(server: Server, path: str) -> str:
    return f"/bench{path}" if server.name == OURS else path


def _work(name: str, title: str, how: str, entrants: Callable[[Place], Mapping[str, Run]]) -> Work:
    return Work(name, title, f"{how} {GOVERNED}" if name == "get" else how, entrants)


WORKS = (
    _work("get", "GET 101 B", "A small JSON answer.", lambda place: _entrants(place, "/quotes/ACME", ANSWER)),
    _work(
        "get-traced",
        "GET 101 B, new traceparent each",
        "As GET 101 B, with another `traceparent` in each call, which must reach the upstream.",
        lambda place: _entrants(place, "/traced/ACME", ANSWER, TRACED),
    ),
    _work(
        "get-10k",
        "GET 10 KB",
        f"As GET 101 B, with an answer of {len(LARGE):,} bytes from a file.",
        lambda place: _entrants(place, "/large/quotes", LARGE),
    ),
    _work(
        "post-1k",
        "POST 1 KB",
        "As GET 101 B, with a body whose length the upstream checks.",
        lambda place: _entrants(place, "/orders/ACME", ANSWER, POSTED.replace("SIZE", str(POSTED_BYTES))),
    ),
    _work(
        "get-jwt",
        "GET 101 B, JWT caller",
        "As GET 101 B, for a caller with an RS256 token. Envoy runs `jwt_authn`, HAProxy `jwt_verify`; nginx and Caddy "
        "verify no tokens as installed.",
        _with_token,
    ),
    _work(
        "added-latency",
        f"Added latency at {PACED_EACH_S:,}/s",
        f"`GET` at {PACED_EACH_S:,} calls a second, timed from when each was due; the p50 of the "
        "upstream without a proxy, "
        "measured just before, is subtracted.",
        _added,
    ),
)
