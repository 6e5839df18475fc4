"""How upstreams are asked, how their answers come back, and what their faults become."""

import asyncio
import json
import random
import ssl

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.tests.http_plane import (
    NOWHERE,
    ask,
    caller_of,
    echo,
    eventually,
    read_body,
    route,
    running,
    say,
    upstream_that,
)  # fmt: skip
from gateway.upstream.connection import Origin

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LARGE = 1 << 25


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def is_direct(request):
    return request.param


def plane_before(tmp_path, url, **more):
    return running(
        tmp_path, [route("r", "/r", f"{url}/r"), route("rest", "/rest/{rest...}", f"{url}/{{rest}}")], **more
    )


def is_problem(answer, status, reason):
    said = json.loads(answer.body)
    assert (answer.status, said["reason"]) == (status, reason)
    return True


async def test_an_upstream_that_is_not_there_is_a_502(tmp_path, is_direct):
    async with plane_before(tmp_path, f"http://127.0.0.1:{NOWHERE}", is_direct=is_direct) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        assert is_problem(await ask(plane, "POST", "/r", body=b"abc"), 502, "upstream-unavailable")
        assert plane.outcomes == [("upstream-unreachable", "handshake_upstream")] * 2


async def test_a_name_that_is_none_is_a_502(tmp_path):
    async with plane_before(tmp_path, "http://nowhere.invalid") as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_an_upstream_that_hangs_is_a_504(tmp_path, is_direct, body):
    async def hang(asked, reader, writer):
        await reader.read()
        return True

    async with (
        upstream_that(hang) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, upstream_first_byte_timeout_s=0.05) as plane,
    ):
        assert is_problem(await ask(plane, "POST" if body else "GET", "/r", body=body), 504, "upstream-timeout")
        assert plane.outcomes == [("upstream-timeout", "handshake_upstream")]
        await eventually(lambda: not behind.open)


async def test_an_upstream_that_reads_nothing_is_a_504(tmp_path, is_direct):
    async def hang(asked, reader, writer):
        reader._transport.pause_reading()
        await asyncio.sleep(3600)

    settings = {"upstream_first_byte_timeout_s": 0.05, "body_max_bytes": LARGE}
    async with (
        upstream_that(hang, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, **settings) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", f"content-length: {LARGE}"))
        caller.send(bytes(LARGE))
        assert is_problem(await caller.answer(), 504, "upstream-timeout")


MALFORMED = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-",
    "both lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\r\nx: 1\ny: 2\r\ncontent-length: 2\r\n\r\nok",
    "bare CR": b"HTTP/1.1 200 OK\r\nx: 1\ry: 2\r\ncontent-length: 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nx: \x00\r\ncontent-length: 2\r\n\r\nok",
    "head without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
async def test_an_answer_that_is_none_is_a_502(tmp_path, said):
    async def answer(asked, reader, writer):
        writer.write(said)
        await writer.drain()
        return True

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        assert len(behind.asked) == 1
        assert plane.outcomes == [("upstream-lost", "handshake_upstream")]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
    ],
)
async def test_half_an_answer_is_never_taken_for_a_whole_one(tmp_path, is_direct, said):
    async def answer(asked, reader, writer):
        writer.write(said)
        await writer.drain()
        return True

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.answer()
        assert plane.outcomes[0][1] in ("handshake_upstream", "upstream_lost")


async def test_an_answer_that_stops_is_cut_off(tmp_path, is_direct):
    async def answer(asked, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await reader.read()
        return True

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, upstream_idle_timeout_s=0.05) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.answer()
        await eventually(lambda: not behind.open)


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: x\r\n\r\n", 304, b""),
        (b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", 299, b"ok"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nok", 404, b"ok"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 9\r\n\r\n", 503, b""),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx-t: 1\r\n\r\n",
            200,
            b"ok",
        ),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
    ],
)
async def test_every_kind_of_answer_comes_back(tmp_path, is_direct, said, status, body):
    async with upstream_that(say(said)) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        async with caller_of(plane) as caller:
            for _ in range(3):
                answer = await caller.ask("GET", "/r")
                assert (answer.status, answer.body) == (status, body)
        assert behind.connections == 1


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n\r\nabc", b"HTTP/1.0 200 OK\r\n\r\nabc"])
async def test_an_answer_may_end_with_its_connection(tmp_path, is_direct, said):
    async def answer(asked, reader, writer):
        writer.write(said)
        return True

    async with upstream_that(answer) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        for _ in range(2):
            assert (await ask(plane, "GET", "/r")).body == b"abc"
        assert behind.connections == 2


async def test_the_answer_to_a_head_has_no_body(tmp_path, is_direct):
    async def answer(asked, reader, writer):
        await say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + ("" if asked.method == "HEAD" else "ok"))(
            asked, reader, writer
        )

    async with (
        upstream_that(answer) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        assert (await caller.ask("HEAD", "/r")).header("content-length") == "2"
        assert (await caller.ask("GET", "/r")).body == b"ok"
        assert behind.connections == 1


async def test_connections_are_kept_and_shared(tmp_path):
    async with upstream_that(echo) as behind, plane_before(tmp_path, behind.url) as plane:
        for number in range(10):
            assert (await ask(plane, "POST", "/r", body=b"%d" % number)).body == b"/r %d" % number
        assert behind.connections == 1


async def test_a_pooled_connection_that_was_just_closed_is_no_fault(tmp_path):
    """What may be asked twice is asked anew, once; what may not is not."""

    async def once(asked, reader, writer):
        # The second request of a connection finds it closed, as a keep-alive that has just run out does.
        if asked.method in ("GET", "DELETE") and writer.is_closing():
            return True
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        return True

    async with upstream_that(once) as behind, plane_before(tmp_path, behind.url) as plane:
        assert [(await ask(plane, "GET", "/r")).status for _ in range(4)] == [200] * 4
        assert behind.connections == 4
        assert (await ask(plane, "POST", "/r")).status == 502
        assert (await ask(plane, "POST", "/r")).status == 200
        assert (await ask(plane, "PUT", "/r", body=b"abc")).status == 502


async def test_a_new_connection_that_is_closed_is_not_asked_again(tmp_path):
    async def close(asked, reader, writer):
        return True

    async with upstream_that(close) as behind, plane_before(tmp_path, behind.url) as plane:
        assert (await ask(plane, "GET", "/r")).status == 502
        assert len(behind.asked) == 1


NOT_WHOLE = {
    "a second answer": OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    "more than its length": OK + b"poison",
    "a body after a HEAD": OK,
}


@pytest.mark.parametrize("said", NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_what_comes_after_an_answer_reaches_nobody(tmp_path, is_direct, said):
    method = "HEAD" if said == OK else "GET"
    async with (
        upstream_that(say(said)) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        for number in range(1, 4):
            answer = await caller.ask(method, "/r")
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"ok")
            assert behind.connections == number


@pytest.mark.parametrize("closes", [True, False])
async def test_an_upstream_may_answer_before_it_has_read_all(tmp_path, is_direct, closes):
    async def early(asked, reader, writer):
        if asked.method == "GET":
            return await echo(asked, reader, writer)
        await reader.readexactly(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        return closes

    async with (
        upstream_that(early, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_max_bytes=LARGE) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("POST", "/r", f"content-length: {LARGE}") + bytes(1000))
        await eventually(lambda: behind.asked)
        caller.send(bytes(LARGE - 1000))
        answer = await caller.answer()
        assert (answer.status, answer.body) == (413, b"no")
        # A connection that still waits for the rest of a body must not get the next request as that rest.
        assert (await ask(plane, "GET", "/r")).body == b"/r "
        assert behind.connections == 2


async def test_large_bodies_flow_both_ways(tmp_path, is_direct):
    async def back(asked, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        left = int(asked.header("content-length")[0])
        while left:
            part = await reader.read(100_000)
            left -= len(part)
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    body = random.Random(7).randbytes(LARGE // 4)
    async with (
        upstream_that(back, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, body_max_bytes=LARGE) as plane,
    ):
        assert (await ask(plane, "POST", "/r", body=body)).body == body


async def test_a_slow_reader_slows_its_upstream_and_is_not_cut_off(tmp_path, is_direct):
    """Its pace is not the upstream's fault, however short the upstream's deadlines are."""
    sent = asyncio.Event()

    async def large(asked, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        writer.write(bytes(LARGE))
        await writer.drain()
        sent.set()

    settings = {"upstream_first_byte_timeout_s": 0.2, "upstream_idle_timeout_s": 0.2}
    async with (
        upstream_that(large) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct, **settings) as plane,
        caller_of(plane) as caller,
    ):
        caller.writer.transport.pause_reading()
        caller.send(caller.head("GET", "/r"))
        await asyncio.sleep(1.2)
        assert not sent.is_set()
        caller.writer.transport.resume_reading()
        assert len((await caller.answer()).body) == LARGE


async def test_events_are_passed_on_as_they_come(tmp_path, is_direct):
    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(asked, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while event := await more.get():
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    async with (
        upstream_that(stream) as behind,
        running(tmp_path, [route("s", "/s", behind.url, protocol="sse")], is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/s"))
        assert (await caller.answer_head()).header("content-type") == "text/event-stream"
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            more.put_nowait(event)
            async with asyncio.timeout(20):
                assert event in await caller.reader.readuntil(event + b"\r\n")
        more.put_nowait(b"")
        async with asyncio.timeout(20):
            await caller.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_caller_that_leaves_takes_its_upstream_along(tmp_path, is_direct, has_begun):
    async def wait(asked, reader, writer):
        if has_begun:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await reader.read()
        return True

    async with (
        upstream_that(wait) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/r"))
        if has_begun:
            await caller.reader.readuntil(b"abc")
        else:
            await eventually(lambda: behind.asked)
        caller.abort()
        await eventually(lambda: not behind.open)
        await eventually(lambda: plane.outcomes)
        assert plane.outcomes == [("abandoned", "client_gone")]


async def test_callers_that_leave_at_random_never_leave_their_answer_to_another(tmp_path, is_direct):
    chance = random.Random(20)

    async def slowly(asked, reader, writer):
        """Answer in pieces with pauses between, so that callers leave before, in and after each."""
        body = f"{asked.target} {asked.body.decode()} ".encode() * chance.randint(1, 200)
        if chance.random() < 0.5:
            said = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        else:
            said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for _ in range(chance.randint(0, 3)):
            cut = chance.randint(0, len(said))
            writer.write(said[:cut])
            said = said[cut:]
            await asyncio.sleep(chance.random() * 0.005)
        writer.write(said)

    async with upstream_that(slowly) as behind, plane_before(tmp_path, behind.url, is_direct=is_direct) as plane:
        whole = 0

        async def call(number):
            nonlocal whole
            async with caller_of(plane) as caller:
                for turn in range(4):
                    body = f"{number}.{turn}".encode() if chance.random() < 0.5 else b""
                    asking = asyncio.ensure_future(
                        caller.ask("POST" if body else "GET", f"/rest/{number}/{turn}", body=body)
                    )
                    if chance.random() < 0.4:
                        await asyncio.wait([asking], timeout=chance.random() * 0.02)
                        await stop_tasks(asking)
                        return
                    answer = await asking
                    said = f"/{number}/{turn} {body.decode()} ".encode()
                    assert answer.status == 200
                    assert answer.body == said * (len(answer.body) // len(said))
                    whole += 1

        for _ in range(4):
            await asyncio.gather(*(call(number) for number in range(60)))
        assert whole > 50
        assert (await ask(plane, "GET", "/rest/last")).body.startswith(b"/last  ")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "0xa9fea9fe", "2852039166", "[fe80::1]", "[::ffff:169.254.169.254]"]
)
async def test_link_local_addresses_are_no_upstreams(tmp_path, host):
    """However they are spelt: looked at is the address that would be used."""
    async with plane_before(tmp_path, f"http://{host}:{NOWHERE}") as plane:
        assert await plane.upstreams.addresses(Origin.of(f"http://{host}")) == []
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")


async def test_an_upstream_has_to_prove_its_name(tmp_path):
    """Over TLS: a certificate of another authority is refused before anything is sent."""
    authority, pem = certificate_of("127.0.0.1", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    asked = []

    async def connected(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with plane_before(tmp_path, url) as plane:
        assert is_problem(await ask(plane, "GET", "/r"), 502, "upstream-unavailable")
        assert not asked
        plane.upstreams.tls = ssl.create_default_context(cadata=authority)
        assert (await ask(plane, "GET", "/r")).body == b"ok"
    server.close()


async def test_idle_connections_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.upstream.client.POOL_MAX", 3)
    may_answer = asyncio.Event()

    async def together(asked, reader, writer):
        await may_answer.wait()
        writer.write(OK)

    async with upstream_that(together) as behind, plane_before(tmp_path, behind.url) as plane:
        calls = [asyncio.create_task(ask(plane, "GET", "/r")) for _ in range(8)]
        await eventually(lambda: len(behind.asked) == 8)
        may_answer.set()
        assert {(await call).status for call in calls} == {200}
        await eventually(lambda: behind.open == 3)


async def test_the_bodies_of_two_callers_are_never_mixed(tmp_path, is_direct):
    async def whole(asked, reader, writer):
        body = await read_body(reader, asked)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with (
        upstream_that(whole, reads_bodies=False) as behind,
        plane_before(tmp_path, behind.url, is_direct=is_direct) as plane,
    ):

        async def upload(letter):
            async with caller_of(plane) as caller:
                caller.send(caller.head("POST", "/r", "content-length: 30000"))
                for _ in range(30):
                    caller.send(letter * 1000)
                    await asyncio.sleep(0)
                assert (await caller.answer()).body == letter * 30_000

        await asyncio.gather(*(upload(bytes([letter])) for letter in range(65, 91)))


def certificate_of(ip, folder):
    """Make a self-signed certificate. Gives it, and a file of it and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ip)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ip))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    path = folder / "upstream.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(text + secret.decode())
    return text, path
