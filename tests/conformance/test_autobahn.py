"""The whole Autobahn test suite, on an echo route: as a client of the gateway, and as its upstream.

The cases of compression run where it is agreed on: on a route that asks for it, and on an echo of the server's own.
Without ``AUTOBAHN=whole`` they run with seven of their eighteen sizes.
"""

import asyncio
import json
import os
import subprocess
import threading

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from apimgmt.engines import free_port
from gateway.peer import ClientGone
from gateway.server import upgrades
from gateway.tests.http_plane import running
from tests.conformance.clients import HERE
from tests.product import Product, eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), pytest.mark.xdist_group("autobahn")]

TRIES = 3
SUITE = HERE / ".autobahn"
LARGEST_BYTES = 16 * 1024 * 1024
"""What the suite sends at once; the default bound of a message is 1 MiB."""
GOOD = {("OK", "OK"), ("INFORMATIONAL", "INFORMATIONAL"), ("UNIMPLEMENTED", "OK")}
"""Of a case and of its close; without permessage-deflate the cases 12 and 13 are unimplemented."""
ALL_CASES = ["*"]
ALL_COUNT = 517
SIZES = range(1, 19) if os.environ.get("AUTOBAHN") == "whole" else (*range(1, 7), 18)
"""Each case of compression sends a thousand messages of up to 128 KiB: all sizes take most of an hour."""
COMPRESSION = [
    f"{group}.{size}"
    for group in (*(f"12.{content}" for content in range(1, 6)), *(f"13.{offer}" for offer in range(1, 8)))
    for size in SIZES
]
COMPRESSED_S = 3600
ENOUGH = {"metric": "bytes_in", "amount": 10**12, "per": 1}
"""The default limit is charged what a message inflates to, and less than the suite sends in ten seconds."""
NOT_STRICT = {
    # What came before a malformed frame in the same segment is not echoed any more.
    "3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15",
    # That text is no UTF-8 is said when its message is whole.
    "6.4.1", "6.4.2", "6.4.3", "6.4.4",
}  # fmt: skip
READ_AHEAD = frozenset({"7.1.2"})
"""The upstream's second close frame is told it by 1002, as it is read before the first is handed on."""


class Echo:
    """An upstream that says what it is told."""

    def __enter__(self):
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._has_begun.wait(20)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    async def _serve(self):
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with serve(_echo, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._has_begun.set()
            await self._ending.wait()


async def _echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        return  # with the code that the case tries


@pytest.fixture(scope="module")
def echo():
    with Echo() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Run a product that takes messages as large as the suite's."""
    if not SUITE.exists():
        pytest.skip("there is no Python 2.7 here, on which alone the Autobahn test suite runs")
    folder = tmp_path_factory.mktemp("autobahn") / "var"
    product = Product(folder, "--no-demo", PROXIED_MESSAGE_MAX_BYTES=str(LARGEST_BYTES))
    product.admin("POST", "tiers/", {"name": "roomy", "limits": [ENOUGH]})
    product.admin("POST", "consumers/", {"name": "tester", "tier": "roomy"})
    product.key = product.admin("POST", "consumers/tester/keys", {"name": "test", "scopes": ["call:*"]})["key"]
    yield product
    assert product.stop() == 0


def open_route(product, path, url, **more):
    handler = {"type": "upstream", "url": url}
    route = {"name": path, "path": f"/{path}/{{rest...}}", "methods": ["GET"], "protocol": "websocket"}
    product.admin("POST", "routes/", route | {"handler": handler, "policies": [], **more})
    # Asked for as no WebSocket it says so once the gateway knows of it, and of the key.
    eventually(lambda: product.call("GET", f"/{path}/x", key=product.key)[0] == 426)


def wstest(mode, folder, cases, **spec):
    """Start the suite with these cases of it."""
    file = folder / f"{mode}.json"
    spec |= {"outdir": str(folder / "report"), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    file.write_text(json.dumps(spec))
    command = [(SUITE / "python").read_text().strip(), SUITE / "bin/wstest", "-m", mode, "-s", file, "-w", "0"]
    with (folder / f"{mode}.output").open("wb") as output:
        return subprocess.Popen(
            command, env=os.environ | {"PYTHONUSERBASE": str(SUITE)}, stdout=output, stderr=subprocess.STDOUT
        )


def verdicts(folder):
    """Return the failed cases and the number of cases that ran."""
    found = json.loads((folder / "report/index.json").read_text())["gateway"]
    outcomes = {case: (one["behavior"], one["behaviorClose"]) for case, one in found.items()}
    allowed = {case: {("NON-STRICT", "OK")} for case in NOT_STRICT}
    return {case: one for case, one in outcomes.items() if one not in GOOD | allowed.get(case, set())}, len(outcomes)


def wrong_each_time(tmp_path, run, known=frozenset(), cases=ALL_CASES):
    """Run these cases, and those that went wrong again: many wait for a second and no longer, on a busy machine too."""
    wrong, expected = {}, ALL_COUNT if cases == ALL_CASES else len(cases)
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(folder, cases)
        wrong, count = verdicts(folder)
        assert number or count == expected
        cases = sorted(set(wrong) - known)
        if not cases:
            return {}
    return wrong


def test_every_case_passes_for_a_client_of_the_gateway(gateway, echo, tmp_path):
    open_route(gateway, "echo", f"ws://127.0.0.1:{echo.port}/{{rest}}")
    server = {"agent": "gateway", "url": f"{gateway.ws_url}/echo/x", "protocols": ["bearer", gateway.key]}

    def run(folder, cases):
        wstest("fuzzingclient", folder, cases, servers=[server]).wait(300)

    assert not wrong_each_time(tmp_path, run)


def compressed_wrongly(tmp_path, run):
    """Return the cases of compression that went wrong; they must not be left out either."""

    def run_and_require(folder, cases):
        run(folder, cases)
        found = json.loads((folder / "report/index.json").read_text())["gateway"]
        assert not [case for case, one in found.items() if one["behavior"] == "UNIMPLEMENTED"]

    return wrong_each_time(tmp_path, run_and_require, cases=COMPRESSION)


@pytest.mark.timeout(COMPRESSED_S)
def test_the_cases_of_compression_pass_on_a_route_that_asks_for_it(gateway, echo, tmp_path):
    open_route(gateway, "small", f"ws://127.0.0.1:{echo.port}/{{rest}}", compression=True)
    server = {"agent": "gateway", "url": f"{gateway.ws_url}/small/x", "protocols": ["bearer", gateway.key]}

    def run(folder, cases):
        wstest("fuzzingclient", folder, cases, servers=[server]).wait(COMPRESSED_S)

    assert not compressed_wrongly(tmp_path, run)


async def echo_compressed(socket):
    await socket.accept(compress=True)
    try:
        while True:
            await socket.send(await socket.receive())
    except ClientGone:
        return


@pytest.mark.timeout(COMPRESSED_S)
async def test_the_cases_of_compression_pass_on_an_echo_of_the_servers_own(tmp_path, monkeypatch):
    if not SUITE.exists():
        pytest.skip("there is no Python 2.7 here, on which alone the Autobahn test suite runs")
    monkeypatch.setattr(upgrades, "served_by", lambda *handshake: echo_compressed)
    async with running(tmp_path, [], proxied_message_max_bytes=LARGEST_BYTES) as plane:
        server = {"agent": "gateway", "url": f"ws://127.0.0.1:{plane.port}/"}

        def run(folder, cases):
            wstest("fuzzingclient", folder, cases, servers=[server]).wait(COMPRESSED_S)

        assert not await asyncio.to_thread(compressed_wrongly, tmp_path, run)


async def call(gateway, path):
    """Echo what the suite says through the gateway, or give the last that it said."""
    outcomes = None
    headers = {"X-API-Key": gateway.key}
    url = f"{gateway.ws_url}/suite{path}"
    async with connect(url, additional_headers=headers, compression=None, max_size=None) as socket:
        try:
            async for outcomes in socket:
                if path.startswith("/runCase"):
                    await socket.send(outcomes)
        except ConnectionClosed:
            return outcomes  # with the code that the case tries
    return outcomes


async def call_all(gateway):
    count = int(await call(gateway, "/getCaseCount"))
    for case in range(1, count + 1):
        await call(gateway, f"/runCase?case={case}&agent=gateway")
    await call(gateway, "/updateReports?agent=gateway")


def test_every_case_passes_for_an_upstream_of_the_gateway(gateway, tmp_path):
    port = free_port()
    open_route(gateway, "suite", f"ws://127.0.0.1:{port}/{{rest}}")

    def run(folder, cases):
        with wstest("fuzzingserver", folder, cases, url=f"ws://127.0.0.1:{port}") as suite:
            try:
                eventually(lambda: "Ok, will run" in (folder / "fuzzingserver.output").read_text())
                asyncio.run(call_all(gateway))
            finally:
                suite.terminate()

    assert not wrong_each_time(tmp_path, run, READ_AHEAD)
