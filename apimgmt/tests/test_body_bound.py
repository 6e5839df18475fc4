import json

import pytest

from apimgmt.body_bound import BODY_MAX_BYTES, held_bodies, serve_bounded


async def requested(parts, headers=()):
    """Send a request in parts to an application that reads all of it; give what was answered and what it read."""
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    sent, read = [], []

    async def application(scope, receive, send):
        while True:
            message = await receive()
            read.append(len(message["body"]))
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    await serve_bounded(application, {"type": "http", "headers": list(headers)}, receive, send)
    return sent, sum(read)


async def test_a_body_within_the_bound_reaches_the_application():
    sent, read = await requested([b"x" * (BODY_MAX_BYTES - 1), b"x"])
    assert (sent[0]["status"], read) == (200, BODY_MAX_BYTES)


@pytest.mark.parametrize(
    ("parts", "headers"),
    [
        ([b"x"], [(b"content-length", str(BODY_MAX_BYTES + 1).encode())]),
        ([b"x" * BODY_MAX_BYTES, b"x"], []),
        ([b"x" * 1024] * 4096, [(b"transfer-encoding", b"chunked")]),
    ],
)
async def test_a_body_beyond_it_is_refused_and_read_no_further(parts, headers):
    sent, read = await requested(parts, headers)
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["reason"] == "too-large"
    assert read <= BODY_MAX_BYTES


async def test_bodies_that_are_never_finished_are_bounded_and_released():
    client, sent = ("203.0.113.7", 1), []
    held_bodies.hold(client[0], 16 * 1024 * 1024 - 10)

    async def receive():
        return {"type": "http.request", "body": b"a" * 20, "more_body": True}

    async def send(message):
        sent.append(message)

    async def application(scope, receive, send):
        while True:
            await receive()

    try:
        await serve_bounded(application, {"type": "http", "headers": [], "client": client}, receive, send)
    finally:
        held_bodies.release(client[0], 16 * 1024 * 1024 - 10)
    assert sent[0]["status"] == 429
    assert held_bodies.total_bytes == 0
