"""Accepts work with 202 and tells how it stands. The NATS KV bucket ``jobs`` is the truth that clients poll."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import orjson

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.durable.job_states import FINAL_STATES
from gateway.handlers.events import HEADERS as SSE_HEADERS
from gateway.policies.json_body import require_plain
from gateway.refusals import Reason, Refused
from gateway.wire.event_stream import last_words
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.plane import Plane

POLL_AFTER_S = 1
"""What ``Retry-After`` tells a client that polls."""
LINK_GOOD_FOR_S = 3600
"""How long a download link is good for; each poll gives a fresh one."""
CANCEL_WAIT_S = 1.5
LOOK_S = 0.2
CHUNK_BYTES = 256 * 1024
IDEMPOTENCY_KEY_MAX_CHARS = 255
TRACEPARENT_MAX_CHARS = 64


async def submit(plane: Plane, call: Call) -> Reply:
    """Keep the work durably, then answer 202.

    Raises Refused for an unknown type, for input that does not fit it, and where too many jobs are open.
    """
    type_ = call.parameters["type"]
    require_plain(call)
    body = await _read_body(call)
    value = parse(body) if body else {}
    schema = await plane.jobs.input_schema(type_)
    plane.validators.check(schema, value)
    document: dict[str, Any] = {
        "id": _job_id(call, type_),
        "type": type_,
        "consumer": call.caller.consumer,
        "key": call.caller.key,
        "state": "queued",
        "progress": 0,
        "message": "",
        "input": value,
        "body_hash": hashlib.sha256(body).hexdigest(),
        "submitted_at": time.time(),
        "traceparent": (call.traceparent or "")[:TRACEPARENT_MAX_CHARS],
    }
    first = await _first(plane, document) if call.header(b"idempotency-key") else None
    if first is None:
        document["places"] = await plane.limiter.take_place(call, document["id"])
        first = _same_body(await plane.jobs.create(document), document)
    document = first
    headers = [(b"location", _status_url(plane, document).encode()), (b"retry-after", str(POLL_AFTER_S).encode())]
    return await _answer(plane, call, 202, _public(plane, document), headers, bytes_in=len(body))


async def status(plane: Plane, call: Call) -> Reply:
    """Say how one of the caller's own jobs stands."""
    document = await _own(plane, call)
    headers = [] if document["state"] in FINAL_STATES else [(b"retry-after", str(POLL_AFTER_S).encode())]
    return await _answer(plane, call, 200, _public(plane, document), headers)


async def cancel(plane: Plane, call: Call) -> Reply:
    """Ask for a job's end, wait a moment for it, and say how the job stands then."""
    document = await _own(plane, call)
    if document["state"] not in FINAL_STATES:
        await plane.jobs.request_cancel(document["id"], by=call.caller.key)
        ends_at = time.monotonic() + CANCEL_WAIT_S
        while document["state"] not in FINAL_STATES and time.monotonic() < ends_at:
            await asyncio.sleep(LOOK_S / 2)
            document = await _own(plane, call)
    return await _answer(plane, call, 200 if document["state"] in FINAL_STATES else 202, _public(plane, document))


async def result(plane: Plane, call: Call) -> Reply:
    """Send the file that a signed link names. The link is the proof: no key is needed, and it expires."""
    job_id = call.parameters["id"]
    wanted = parse_qs(call.query.decode("latin-1"))
    expires, signature = wanted.get("expires", [""])[0], wanted.get("signature", [""])[0]
    if not hmac.compare_digest(signature.encode(), _signature(plane, job_id, expires).encode()):
        raise Refused(Reason.FORBIDDEN, "The download link is not valid; ask the job's status for a fresh one.")
    if int(expires) < time.time():
        raise Refused(Reason.GONE, "The download link has expired; ask the job's status for a fresh one.")
    document = await plane.jobs.get(job_id)
    if document is None or not document.get("file"):
        raise Refused(Reason.NOT_FOUND, "This result is no longer kept.")
    path = plane.config.data_dir / "results" / job_id / document["file"]["name"]
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
    except OSError:
        raise Refused(Reason.NOT_FOUND, "This result is no longer kept.") from None
    await call.peer.start(200, _file_headers(document["file"], size))
    async for chunk in _chunks(path):
        await call.peer.send(chunk)
    await call.peer.send(b"", more=False)
    return Reply(status=200, bytes_out=size)


async def events(plane: Plane, call: Call) -> Reply:
    """Send a job's status as server-sent events, each time that it changes, until it has ended."""
    document = await _own(plane, call)
    ending: list[Refused] = []
    connection = plane.connections.open(call, ending.append)
    await call.peer.start(200, [*SSE_HEADERS, *plane.limiter.headers(call)])
    gone = asyncio.ensure_future(call.peer.gone())
    quiet_since = time.monotonic()
    said = b""
    try:
        while True:
            now_said = orjson.dumps(_public(plane, document))
            if now_said != said:
                said, quiet_since = now_said, time.monotonic()
                await call.peer.send(b"data: " + now_said + b"\n\n")
                connection.sent(len(now_said))
            elif time.monotonic() - quiet_since > plane.config.sse_heartbeat_s:
                quiet_since = time.monotonic()
                await call.peer.send(b":\n\n")
            if document["state"] in FINAL_STATES or ending or gone.done():
                break
            await asyncio.sleep(LOOK_S)
            document = await _own(plane, call)
        await call.peer.send(last_words(ending[0]) if ending else b"", more=False)
    finally:
        await stop_tasks(gone)
    if not ending:
        return Reply(status=200)
    return Reply(status=200, refused=ending[0], error_class=ending[0].row.live.value, closed_by="gateway")


async def _read_body(call: Call) -> bytes:
    parts = []
    while part := await call.peer.read():
        parts.append(part)
    return b"".join(parts)


def _job_id(call: Call, type_: str) -> str:
    """Give a random id, or with an ``Idempotency-Key`` always the same one for this consumer, type and key."""
    key = (call.header(b"idempotency-key") or "").strip().strip('"')
    if not key:
        return f"job_{secrets.token_hex(12)}"
    if len(key) > IDEMPOTENCY_KEY_MAX_CHARS:
        raise Refused(Reason.INVALID_REQUEST, f"Idempotency-Key has more than {IDEMPOTENCY_KEY_MAX_CHARS} characters.")
    named = "\0".join((call.caller.consumer, type_, key))
    return f"job_{hashlib.sha256(named.encode()).hexdigest()[:24]}"


async def _first(plane: Plane, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the job that already has this id, or None. Raises Refused if it was made from another body."""
    first = await plane.jobs.get(document["id"])
    return None if first is None else _same_body(first, document)


def _same_body(first: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return the first job of an idempotency key. Raises Refused if it was made from another body."""
    if first["body_hash"] != document["body_hash"]:
        raise Refused(
            Reason.INVALID_PAYLOAD, "This Idempotency-Key was used with another body.", cause="idempotency-conflict"
        )
    return first


async def _own(plane: Plane, call: Call) -> dict[str, Any]:
    """Give the caller's own job; another consumer's is as unknown as one that never was."""
    document = await plane.jobs.get(call.parameters["id"])
    if document is None or document["consumer"] != call.caller.consumer:
        raise Refused(Reason.NOT_FOUND, "There is no such job.")
    return document


def _public(plane: Plane, document: dict[str, Any]) -> dict[str, Any]:
    said = {
        "id": document["id"],
        "type": document["type"],
        "state": document["state"],
        "statusUrl": _status_url(plane, document),
        "progress": document["progress"],
        "message": document["message"],
    }
    if document["state"] == "completed":
        if document.get("file"):
            said["downloadUrl"] = _download_url(plane, document)
        else:
            said["result"] = document.get("result")
    if document["state"] == "failed":
        said["error"] = document.get("error")
    return said


def _status_url(plane: Plane, document: dict[str, Any]) -> str:
    return f"{plane.config.public_url}/v1/jobs/{document['id']}"


def _download_url(plane: Plane, document: dict[str, Any]) -> str:
    # Rounded up, so that the links of a minute are one link that a cache or a person can share.
    expires = str(int(time.time() // 60 * 60) + 60 + LINK_GOOD_FOR_S)
    signature = _signature(plane, document["id"], expires)
    return f"{_status_url(plane, document)}/result?expires={expires}&signature={signature}"


def _signature(plane: Plane, job_id: str, expires: str) -> str:
    return hmac.digest(plane.config.secret_key, f"job-result:{job_id}:{expires}".encode(), "sha256").hex()


def _file_headers(file: dict[str, str], size: int) -> Headers:
    return [
        (b"content-type", file["type"].encode()),
        (b"content-length", str(size).encode()),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(file['name'])}".encode()),
        (b"cache-control", b"private, no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


async def _answer(
    plane: Plane, call: Call, status_: int, said: dict[str, Any], headers: Headers | None = None, bytes_in: int = 0
) -> Reply:
    body = orjson.dumps(said)
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"private, no-store"),
    ]
    await call.peer.start(status_, [*fixed, *(headers or []), *plane.limiter.headers(call)])
    await call.peer.send(body, more=False)
    return Reply(status=status_, bytes_in=bytes_in, bytes_out=len(body))
