import asyncio
import ssl
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.concurrency.stopping import stop_tasks
from gateway.config import Config
from gateway.delivery import client as webhook_client
from gateway.delivery.client import SendFailed, SystemResolver, WebhookClient

LOOPBACK = (ip_network("127.0.0.0/8"),)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def config(allowed=LOOPBACK, timeout_s=2.0):
    return Config(
        process="t", kind="delivery", data_dir=Path(), nats_url="", redis_url="", key_pepper=b"", secret_key=b"",
        public_url="", outbound_allowed_networks=allowed, webhook_timeout_s=timeout_s,
    )  # fmt: skip


async def to_loopback(host, port):
    return [(2, ("127.0.0.1", port))]


@asynccontextmanager
async def listening(serve, **options):
    async def tidily(reader, writer):
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(tidily, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def client(**options):
    made = WebhookClient(config(), **options)
    try:
        yield made
    finally:
        await made.close()


async def send(client_, url, body=b"{}"):
    return await client_.send(url, {"webhook-id": "1"}, body)


def certificate(name):
    """Make a certificate of its own authority; gives it and its key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


async def test_tls_is_verified_for_the_name_of_the_url_at_the_address_that_was_looked_at(tmp_path):
    public, private = certificate("hooks.invalid")
    (tmp_path / "c.pem").write_bytes(public + private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "c.pem")
    names, hosts = [], []
    context.sni_callback = lambda ssl_socket, name, context_: names.append(name)

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        hosts.append(next(line for line in head.split("\r\n") if line.startswith("host: ")))
        await reader.readexactly(2)
        writer.write(OK)
        await reader.read()

    async with listening(serve, ssl=context) as port, client(resolve=to_loopback) as made:
        with pytest.raises(SendFailed, match="certificate is not valid"):
            await send(made, f"https://hooks.invalid:{port}/")
        made.tls.load_verify_locations(cadata=public.decode())
        assert (await send(made, f"https://hooks.invalid:{port}/")).body == b"ok"
        with pytest.raises(SendFailed, match="certificate"):
            await send(made, f"https://other.invalid:{port}/")
    assert names == ["hooks.invalid", "hooks.invalid", "other.invalid"]
    assert hosts == [f"host: hooks.invalid:{port}"]


async def test_of_several_addresses_only_those_that_are_not_inner_are_called():
    async def resolve(host, port):
        return [(2, ("10.0.0.1", port)), (2, ("169.254.169.254", port)), (2, ("127.0.0.1", port))]

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK)
        await reader.read()

    async with listening(serve) as port, client(resolve=resolve) as made:
        assert (await send(made, f"http://many.invalid:{port}/")).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1"])
async def test_nothing_is_sent_to_an_inner_address(address):
    async def resolve(host, port):
        return [(10 if ":" in address else 2, (address, port))]

    made = WebhookClient(config(allowed=()), resolve)
    with pytest.raises(SendFailed, match="internal network"):
        await send(made, "http://named.invalid/")


async def test_a_name_that_cannot_be_resolved_and_a_port_that_is_closed_are_told_so():
    async def nobody(host, port):
        raise OSError("no such name")

    async with client(resolve=nobody) as made:
        with pytest.raises(SendFailed, match="cannot be resolved"):
            await send(made, "http://nobody.invalid/")
    async with client(resolve=to_loopback) as made:
        with pytest.raises(SendFailed, match="host does not answer"):
            await send(made, "http://named.invalid:1/")


async def test_a_line_that_its_receiver_has_closed_is_opened_again():
    lines = []

    async def serve(reader, writer):
        lines.append(writer)
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)

    async with listening(serve) as port, client(resolve=to_loopback) as made:
        for _ in range(3):
            assert (await send(made, f"http://named.invalid:{port}/")).status == 200
            await asyncio.sleep(0.1)
    assert len(lines) == 3


async def test_lines_are_kept_between_messages():
    lines = []

    async def serve(reader, writer):
        lines.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(OK)

    async with listening(serve) as port, client(resolve=to_loopback) as made:
        for _ in range(5):
            await send(made, f"http://named.invalid:{port}/")
    assert len(lines) == 1


async def test_one_name_that_hangs_takes_one_thread(monkeypatch):
    release, requested = threading.Event(), []

    def hang(host, port, **more):
        requested.append(host)
        if host == "hanging.invalid":
            release.wait(20)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(webhook_client.socket, "getaddrinfo", hang)
    resolve = SystemResolver()
    waiting = [asyncio.ensure_future(resolve("hanging.invalid", 80)) for _ in range(200)]
    try:
        assert await asyncio.wait_for(resolve("quick.invalid", 80), 10) == [(2, ("127.0.0.1", 80))]
        await stop_tasks(waiting[0])
    finally:
        release.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert requested.count("hanging.invalid") == 1
