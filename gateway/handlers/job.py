"""Jobs over HTTP: accepted with 202, then polled or followed as server-sent events, cancelled, and downloaded.

The document in the NATS KV bucket ``jobs`` is the state that clients see; the control plane updates it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from gateway.call import Call, Reply
from gateway.concurrency.stopping import stop_tasks
from gateway.connections.open import Connection
from gateway.durable.job_states import FINAL_STATES
from gateway.handlers.events import HEADERS as SSE_HEADERS
from gateway.handlers.events import HEARTBEAT
from gateway.handlers.requests import idempotency_key, query_values, read_body, require_no_query
from gateway.handlers.responses import Header, send_json
from gateway.identity.rights import allowed, may_use
from gateway.policies.json_body import require_plain
from gateway.refusals import NO_PAGE, NOSNIFF, Reason, Refused
from gateway.side_thread import weight_of
from gateway.snapshot.right import Right, Verb
from gateway.wire.event_stream import final_event
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.plane import Plane

JobDocument = dict[str, Any]

POLL_AFTER_S = 1
"""The ``Retry-After`` of a job that has not ended."""
LINK_GOOD_FOR_S = 3600
"""How long a download link is valid; each poll returns a new one."""
CANCEL_WAIT_S = 1.5
CHUNK_BYTES = 256 * 1024
TRACEPARENT_MAX_CHARS = 64
PRIVATE = b"private, no-store"


async def submit(plane: Plane, call: Call) -> Reply:
    """Store the job, then answer 202.

    Raises Refused for an unknown type, for input that does not match its schema, and where too many jobs are open.
    """
    type_ = call.parameters["type"]
    require_no_query(call)
    require_plain(call)
    body = await read_body(call, plane.log.payload_max_bytes)
    value = await _checked(plane, call, body, await plane.jobs.input_schema(type_))
    key = idempotency_key(call)
    document: JobDocument = {
        "id": _job_id(call, type_, key),
        "type": type_,
        "consumer": call.caller.consumer,
        "key": call.caller.key,
        "maker": call.caller.maker,
        "state": "queued",
        "progress": 0,
        "message": "",
        "input": value,
        "body_hash": hashlib.sha256(body).hexdigest(),
        "submitted_at": time.time(),
        "traceparent": (call.traceparent or "")[:TRACEPARENT_MAX_CHARS],
    }
    existing = await plane.jobs.get(document["id"]) if key is not None else None
    job = existing if existing is not None else await _create(plane, call, document)
    if job["body_hash"] != document["body_hash"]:
        raise Refused(
            Reason.INVALID_PAYLOAD, "This Idempotency-Key was used with another body.", cause="idempotency-conflict"
        )
    headers = [(b"location", _status_url(plane, job).encode()), *_poll_again(job, even_if_final=True)]
    return await _send(plane, call, 202, job, headers, bytes_in=len(body))


async def status(plane: Plane, call: Call) -> Reply:
    """Serve ``GET /v1/jobs/{id}``: the state of a job that the caller may use."""
    require_no_query(call)
    job = await _own(plane, call)
    return await _send(plane, call, 200, job, _poll_again(job))


async def cancel(plane: Plane, call: Call) -> Reply:
    """Request cancellation and wait up to ``CANCEL_WAIT_S`` for it: 200 once the job has ended, otherwise 202."""
    require_no_query(call)
    job = await _own(plane, call)
    if job["state"] not in FINAL_STATES:
        await plane.jobs.request_cancel(job["id"], by=call.caller.key)
        job = await _wait_for_end(plane, job)
    return await _send(plane, call, 200 if job["state"] in FINAL_STATES else 202, job)


async def result(plane: Plane, call: Call) -> Reply:
    """Send the file of a signed link. The link is the credential: it needs no key, and it expires."""
    job_id = call.parameters["id"]
    query = query_values(call, {"expires", "signature"})
    expires, signature = query.get("expires", ""), query.get("signature", "")
    if not hmac.compare_digest(signature.encode(), _signature(plane, job_id, expires).encode()):
        raise Refused(Reason.FORBIDDEN, "The download link is not valid; the job's status has a new one.")
    if int(expires) < time.time():
        raise Refused(Reason.GONE, "The download link has expired; the job's status has a new one.")
    job = await plane.jobs.get(job_id)
    if job is None or not job.get("file"):
        raise Refused(Reason.NOT_FOUND, "This result is no longer kept.")
    path = plane.config.data_dir / "results" / job_id / job["file"]["name"]
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
    except OSError:
        raise Refused(Reason.NOT_FOUND, "This result is no longer kept.") from None
    await call.peer.start(200, _file_headers(job["file"], size))
    async for chunk in _chunks(path):
        await call.peer.send(chunk)
    await call.peer.send(b"", more=False)
    return Reply(status=200, bytes_out=size)


async def events(plane: Plane, call: Call) -> Reply:
    """Send the state of a job as server-sent events, now and at each change, until it has ended."""
    require_no_query(call)
    job = await _own(plane, call)
    ending: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()

    def end(refused: Refused) -> None:
        if not ending.done():
            ending.set_result(refused)

    connection = plane.connections.open(call, end)
    connection.keeps_rights = lambda: _may_use(call, job)
    if not connection.keeps_rights():
        raise Refused(Reason.FORBIDDEN)
    await call.peer.start(200, [*SSE_HEADERS, *plane.limiter.headers(call)])
    call.peer.probe_with(HEARTBEAT)
    gone = asyncio.create_task(call.peer.gone(), name="job events gone")
    writer = asyncio.create_task(_send_changes(plane, call, connection, job), name="job events writer")
    try:
        await asyncio.wait({gone, writer, ending}, return_when=asyncio.FIRST_COMPLETED)
        if writer.done():
            writer.result()
    finally:
        await stop_tasks(gone, writer)
    refused = ending.result() if ending.done() else None
    await call.peer.send(final_event(refused) if refused is not None else b"", more=False)
    if refused is None:
        return Reply(status=200)
    return Reply(status=200, refused=refused, error_class=refused.row.live.value, closed_by="gateway")


async def _checked(plane: Plane, call: Call, body: bytes, schema: Mapping[str, Any] | None) -> Any:
    """Return the parsed input of a job. Raises Refused where it does not match the schema of its type."""

    def check() -> Any:
        value = parse(body) if body else {}
        plane.validators.check(schema, value)
        return value

    weight = weight_of(len(body), plane.validators.evaluations_of(schema))
    return await plane.side_threads.run(call.caller.consumer, weight, check)


async def _create(plane: Plane, call: Call, document: JobDocument) -> JobDocument:
    """Take a place among the open jobs and store the job. Returns the one that has the id, if it is taken."""
    places = document["places"] = await plane.limiter.take_place(call, document["id"])
    try:
        return await plane.jobs.create(document)
    except BaseException:
        # Where only the confirmation was lost, the job exists and runs without a place; its end releases nothing.
        plane.limiter.give_back_place(places, document["id"])
        raise


async def _wait_for_end(plane: Plane, job: JobDocument) -> JobDocument:
    """Return the job once it has ended, or as it is after ``CANCEL_WAIT_S``."""
    try:
        async with (
            asyncio.timeout(CANCEL_WAIT_S),
            aclosing(plane.jobs.watch(job["id"], idle_s=CANCEL_WAIT_S)) as documents,
        ):
            async for document in documents:
                job = document or job
                if document is None or job["state"] in FINAL_STATES:
                    break
    except TimeoutError:
        pass
    return job


async def _send_changes(plane: Plane, call: Call, connection: Connection, job: JobDocument) -> None:
    sent = b""
    async with aclosing(plane.jobs.watch(job["id"], idle_s=plane.config.sse_heartbeat_s)) as documents:
        async for document in documents:
            if document is None:
                await call.peer.send(HEARTBEAT)
                continue
            data = orjson.dumps(_public(plane, document))
            if data != sent:
                sent = data
                await call.peer.send(b"data: " + data + b"\n\n")
                connection.sent(len(data))
            if document["state"] in FINAL_STATES:
                return


def _job_id(call: Call, type_: str, key: str | None) -> str:
    """Return a random id, or the one that belongs to this consumer, type and idempotency key.

    A caller without the right to every job of the type, as on a route of jobs, finds only those that it made itself.
    """
    if key is None:
        return f"job_{secrets.token_hex(12)}"
    maker = () if allowed(call.caller, Right(Verb.JOBS, type_)) else (call.caller.maker,)
    scope = "\0".join((call.caller.consumer, type_, key, *maker))
    return f"job_{hashlib.sha256(scope.encode()).hexdigest()[:24]}"


async def _own(plane: Plane, call: Call) -> JobDocument:
    """Return a job that the caller may use: it submitted the job, or it has the right to all jobs of the type.

    Raises Refused ``not-found`` for any other, so that it cannot be distinguished from one that does not exist.
    """
    job = await plane.jobs.get(call.parameters["id"])
    if job is None or not _may_use(call, job):
        raise Refused(Reason.NOT_FOUND, "There is no such job.")
    return job


def _may_use(call: Call, job: JobDocument) -> bool:
    is_own: bool = job["consumer"] == call.caller.consumer
    made_by = job.get("maker") or job["key"]
    return is_own and may_use(call.caller, Right(Verb.JOBS, job["type"]), made_by)


def _public(plane: Plane, job: JobDocument) -> dict[str, Any]:
    members = {
        "id": job["id"],
        "type": job["type"],
        "state": job["state"],
        "statusUrl": _status_url(plane, job),
        "progress": job["progress"],
        "message": job["message"],
    }
    if job["state"] == "completed":
        if job.get("file"):
            members["downloadUrl"] = _download_url(plane, job)
        else:
            members["result"] = job.get("result")
    if job["state"] == "failed":
        members["error"] = job.get("error")
    return members


def _status_url(plane: Plane, job: Mapping[str, Any]) -> str:
    return f"{plane.config.public_url}/v1/jobs/{job['id']}"


def _download_url(plane: Plane, job: Mapping[str, Any]) -> str:
    # Rounded up, so that all links of one minute are the same and can be cached.
    expires = str(int(time.time() // 60 * 60) + 60 + LINK_GOOD_FOR_S)
    signature = _signature(plane, job["id"], expires)
    return f"{_status_url(plane, job)}/result?expires={expires}&signature={signature}"


def _signature(plane: Plane, job_id: str, expires: str) -> str:
    return hmac.digest(plane.config.secret_key, f"job-result:{job_id}:{expires}".encode(), "sha256").hex()


def _poll_again(job: Mapping[str, Any], *, even_if_final: bool = False) -> list[Header]:
    if job["state"] in FINAL_STATES and not even_if_final:
        return []
    return [(b"retry-after", str(POLL_AFTER_S).encode())]


def _file_headers(file: dict[str, str], size: int) -> Headers:
    return [
        (b"content-type", file["type"].encode()),
        (b"content-length", str(size).encode()),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(file['name'])}".encode()),
        (b"cache-control", PRIVATE),
        NOSNIFF,
        NO_PAGE,
    ]


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


async def _send(
    plane: Plane, call: Call, code: int, job: JobDocument, headers: list[Header] | None = None, *, bytes_in: int = 0
) -> Reply:
    return await send_json(
        plane.limiter,
        call,
        code,
        _public(plane, job),
        headers=headers or (),
        cache_control=PRIVATE,
        bytes_in=bytes_in,
    )
