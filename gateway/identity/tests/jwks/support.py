import asyncio

import pytest

from gateway.call import Call
from gateway.credentials.api_keys import from_text
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.tests.http_plane import eventually, say


def call_with(text):
    return Call(protocol=Protocol.HTTP, address="/", ip="192.0.2.7", credential=from_text(text))


async def proved(plane, text):
    return await plane.authenticator.authenticate(call_with(text))


async def refusal(plane, text):
    with pytest.raises(Refused) as caught:
        await proved(plane, text)
    return caught.value


async def settled(plane):
    """Wait until every look that was begun has ended, and what fell due meanwhile has begun and ended too."""
    plane.key_sets._nudge.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await eventually(lambda: not any(set_.task for set_ in plane.key_sets._sets.values()))


def status(code, *lines, body=""):
    return say("\r\n".join([f"HTTP/1.1 {code} X", *lines, f"content-length: {len(body)}", "", body]))


async def hang(requested, reader, writer):
    await reader.read()
    return True


async def drip(requested, reader, writer):
    """Answer a byte at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def pour(requested, reader, writer):
    """Answer without end."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def hang_up(requested, reader, writer):
    return True
