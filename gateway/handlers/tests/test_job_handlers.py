import asyncio
import json
import re
import time
from dataclasses import replace

import orjson
import pytest

from gateway.handlers import job as handlers
from gateway.link.nats import JOBS_BUCKET
from gateway.peer import ClientGone
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.right import Right, Verb
from gateway.tests.event_plane import HttpExchange, running

SCHEMA = {"type": "object", "properties": {"rows": {"type": "integer"}}, "additionalProperties": False}


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, []) as plane:
        await plane.js.delete_key_value(JOBS_BUCKET)
        await plane.js.create_key_value(bucket=JOBS_BUCKET)
        bucket = await plane.js.key_value(JOBS_BUCKET)
        await bucket.put("type.work", orjson.dumps({"name": "work", "schema": SCHEMA}))
        yield plane


async def ask(plane, handler, *, body=b"", key=None, headers=None, query=b"", **parameters):
    """Make one call; gives the caller's end of it."""
    exchange = HttpExchange(body if isinstance(body, bytes) else json.dumps(body).encode())
    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    call = plane.call(peer=exchange, key=key, headers=named, query=query, parameters=parameters)
    reply = await handler(plane, call)
    assert exchange.is_ended
    assert reply.status == exchange.status
    return exchange


async def refused(plane, handler, **more):
    with pytest.raises(Refused) as info:
        await ask(plane, handler, **more)
    return info.value.reason


async def submitted(plane, body=b"{}", **more):
    return (await ask(plane, handlers.submit, body=body, type="work", **more)).parsed


async def change(plane, job_id, **changes):
    """Write what the control plane would."""
    bucket = await plane.js.key_value(JOBS_BUCKET)
    document = orjson.loads((await bucket.get(job_id)).value) | changes
    await bucket.put(job_id, orjson.dumps(document))


async def completed_with_a_file(plane, content=b"%PDF-", name="r.pdf"):
    job_id = (await submitted(plane))["id"]
    folder = plane.config.data_dir / "results" / job_id
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    await change(plane, job_id, state="completed", progress=1.0, file={"name": name, "type": "application/pdf"})
    return job_id


async def link_of(plane, job_id):
    """Return the query of the download link in the status."""
    shown = (await ask(plane, handlers.status, id=job_id)).parsed
    return shown["downloadUrl"].partition("?")[2].encode()


async def test_a_submission_has_no_query_parameters(plane):
    assert await refused(plane, handlers.submit, type="work", query=b"dry_run=true") is Reason.INVALID_REQUEST


async def test_accepted_work_is_a_202_that_says_where_and_when_to_look(plane):
    answer = await ask(plane, handlers.submit, body={"rows": 3}, type="work")
    url = f"http://gateway.test/v1/jobs/{answer.parsed['id']}"
    assert answer.status == 202
    assert (answer.headers["location"], answer.headers["retry-after"]) == (url, "1")
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.parsed | {"id": ""} == {
        "id": "", "type": "work", "state": "queued", "statusUrl": url, "progress": 0, "message": "",
    }  # fmt: skip
    bucket = await plane.js.key_value(JOBS_BUCKET)
    kept = orjson.loads((await bucket.get(answer.parsed["id"])).value)
    assert (kept["consumer"], kept["input"], kept["state"]) == ("acme", {"rows": 3}, "queued")


async def test_work_without_a_body_has_no_input(plane):
    job_id = (await submitted(plane, b""))["id"]
    bucket = await plane.js.key_value(JOBS_BUCKET)
    assert orjson.loads((await bucket.get(job_id)).value)["input"] == {}


async def test_the_inputs_of_all_types_can_be_described(plane):
    await submitted(plane)
    assert await plane.jobs.input_schemas() == {"work": SCHEMA}


@pytest.mark.parametrize("type_", ["nothing", "", "a b", "*", ">", "..", "a.b", "ü", "x" * 5000])
async def test_a_type_that_there_is_not_is_a_404(plane, type_):
    assert await refused(plane, handlers.submit, type=type_) is Reason.NOT_FOUND


async def stored(plane):
    """Return the keys of all that the bucket of jobs holds."""
    info = await plane.js.stream_info(f"KV_{JOBS_BUCKET}", subjects_filter=">")
    return {subject.removeprefix(f"$KV.{JOBS_BUCKET}.") for subject in info.state.subjects}


@pytest.mark.parametrize("body", [b'{"rows": "many"}', b'{"more": 1}', b"[]", b"not json", b'{"a":1,"a":2}', b"\xff"])
async def test_input_that_does_not_fit_is_refused_and_keeps_nothing(plane, body):
    assert await refused(plane, handlers.submit, type="work", body=body) is Reason.INVALID_PAYLOAD
    assert await stored(plane) == {"type.work"}


async def test_the_same_idempotency_key_and_body_is_the_same_job(plane):
    named = {"idempotency-key": '"k1"'}
    first, again = [await submitted(plane, b'{"rows":1}', headers=named) for _ in range(2)]
    assert first == again
    unquoted = await submitted(plane, b'{"rows":1}', headers={"idempotency-key": "k1"})
    assert unquoted == first


async def test_a_repeat_is_told_how_the_job_stands_by_then(plane):
    named = {"idempotency-key": "k1"}
    job_id = (await submitted(plane, headers=named))["id"]
    await change(plane, job_id, state="running", progress=0.5)
    shown = await submitted(plane, headers=named)
    assert (shown["id"], shown["state"], shown["progress"]) == (job_id, "running", 0.5)


async def test_many_at_once_with_one_idempotency_key_are_one_job(plane):
    shown = await asyncio.gather(*(submitted(plane, headers={"idempotency-key": "k1"}) for _ in range(10)))
    assert len({job["id"] for job in shown}) == 1


async def test_the_same_idempotency_key_with_another_body_is_refused(plane):
    named = {"idempotency-key": "k1"}
    await submitted(plane, b'{"rows":1}', headers=named)
    with pytest.raises(Refused) as info:
        await submitted(plane, b'{"rows":2}', headers=named)
    assert (info.value.status, info.value.cause) == (422, "idempotency-conflict")


async def test_idempotency_keys_of_two_consumers_do_not_meet(plane):
    named = {"idempotency-key": "k1"}
    mine = await submitted(plane, b'{"rows":1}', headers=named)
    other = await submitted(plane, b'{"rows":2}', headers=named, key=plane.other_key)
    assert mine["id"] != other["id"]


async def test_an_idempotency_key_has_a_bound(plane):
    named = {"idempotency-key": "k" * 256}
    assert await refused(plane, handlers.submit, type="work", headers=named) is Reason.INVALID_REQUEST


@pytest.mark.parametrize("key", ["", '""', " "])
async def test_an_empty_idempotency_key_is_refused(plane, key):
    assert (
        await refused(plane, handlers.submit, type="work", headers={"idempotency-key": key}) is Reason.INVALID_REQUEST
    )
    assert await stored(plane) == {"type.work"}


@pytest.mark.parametrize("handler", [handlers.status, handlers.cancel, handlers.events])
async def test_another_consumers_job_is_as_unknown_as_none(plane, handler):
    job_id = (await submitted(plane))["id"]
    assert await refused(plane, handler, id=job_id, key=plane.other_key) is Reason.NOT_FOUND
    assert (await ask(plane, handlers.status, id=job_id)).parsed["state"] == "queued"


@pytest.mark.parametrize(
    "job_id", ["", "job_0", "job_" + "0" * 24, "job_*", "job_>", "type.work", "cancel.job_0", "job_a b", "job_ü"]
)
async def test_an_id_that_no_job_has_is_a_404(plane, job_id):
    assert await refused(plane, handlers.status, id=job_id) is Reason.NOT_FOUND


async def test_who_polls_is_told_to_wait_until_the_job_has_ended(plane):
    job_id = (await submitted(plane))["id"]
    await change(plane, job_id, state="running", progress=0.25, message="counting")
    answer = await ask(plane, handlers.status, id=job_id)
    assert answer.headers["retry-after"] == "1"
    assert (answer.parsed["progress"], answer.parsed["message"]) == (0.25, "counting")
    await change(plane, job_id, state="completed", progress=1.0, result={"rows": 3})
    answer = await ask(plane, handlers.status, id=job_id)
    assert "retry-after" not in answer.headers
    assert (answer.parsed["state"], answer.parsed["result"]) == ("completed", {"rows": 3})


async def test_a_failed_job_says_why(plane):
    job_id = (await submitted(plane))["id"]
    await change(plane, job_id, state="failed", error={"title": "Job failed", "status": 500})
    shown = (await ask(plane, handlers.status, id=job_id)).parsed
    assert (shown["state"], shown["error"]["status"]) == ("failed", 500)
    assert "result" not in shown


async def test_a_wish_to_cancel_is_kept_and_202_until_it_is_granted(plane):
    job_id = (await submitted(plane))["id"]
    answer = await ask(plane, handlers.cancel, id=job_id)
    assert (answer.status, answer.parsed["state"]) == (202, "queued")
    bucket = await plane.js.key_value(JOBS_BUCKET)
    assert (await bucket.get(f"cancel.{job_id}")).value
    await change(plane, job_id, state="cancelled")
    answer = await ask(plane, handlers.cancel, id=job_id)
    assert (answer.status, answer.parsed["state"]) == (200, "cancelled")


async def test_a_signed_link_gives_the_file_without_a_key(plane):
    job_id = await completed_with_a_file(plane, b"%PDF-" + bytes(600_000), "ré.pdf")
    exchange = HttpExchange()
    call = plane.call(peer=exchange, query=await link_of(plane, job_id), parameters={"id": job_id})
    call.principal = None
    await handlers.result(plane, call)
    assert (exchange.status, len(exchange.body)) == (200, 600_005)
    assert exchange.headers["content-type"] == "application/pdf"
    assert exchange.headers["content-length"] == "600005"
    assert exchange.headers["content-disposition"] == "attachment; filename*=UTF-8''r%C3%A9.pdf"
    assert exchange.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (b"signature=.", b"signature=g"),
        (b"signature=.*", b""),
        (b"signature=.*", b"signature=%C3%BC"),
        (b"expires=[0-9]+", b"expires=99999999999"),
        (b"expires=[0-9]+", b"expires=never"),
        (b".*", b""),
    ],
)
async def test_a_link_that_was_changed_is_a_403(plane, pattern, instead):
    job_id = await completed_with_a_file(plane)
    query = re.sub(pattern, instead, await link_of(plane, job_id), count=1)
    assert await refused(plane, handlers.result, id=job_id, query=query) is Reason.FORBIDDEN


async def test_a_link_is_good_for_one_job_only(plane):
    mine, other = [await completed_with_a_file(plane) for _ in range(2)]
    assert await refused(plane, handlers.result, id=other, query=await link_of(plane, mine)) is Reason.FORBIDDEN


async def test_a_link_that_has_expired_is_a_410(plane, monkeypatch):
    job_id = await completed_with_a_file(plane)
    query = await link_of(plane, job_id)
    later = time.time() + handlers.LINK_GOOD_FOR_S + 61
    monkeypatch.setattr(handlers.time, "time", lambda: later)
    assert await refused(plane, handlers.result, id=job_id, query=query) is Reason.GONE


async def test_a_result_that_is_no_longer_kept_is_a_404(plane):
    job_id = await completed_with_a_file(plane)
    query = await link_of(plane, job_id)
    (plane.config.data_dir / "results" / job_id / "r.pdf").unlink()
    assert await refused(plane, handlers.result, id=job_id, query=query) is Reason.NOT_FOUND


async def test_progress_is_followed_as_server_sent_events_until_the_end(plane):
    job_id = (await submitted(plane))["id"]
    exchange = HttpExchange()
    call = plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id})
    serving = asyncio.create_task(handlers.events(plane, call))
    await exchange.until(b'"state":"queued"')
    await change(plane, job_id, state="running", progress=0.5)
    await exchange.until(b'"progress":0.5')
    await change(plane, job_id, state="completed", result=1)
    await asyncio.wait_for(serving, 20)
    assert exchange.is_ended
    assert exchange.headers["content-type"].startswith("text/event-stream")
    reported = [json.loads(line[6:])["state"] for line in exchange.body.decode().split("\n\n") if line]
    assert reported == ["queued", "running", "completed"]
    plane.connections.closed(call.connection)


def follow(plane, job_id):
    exchange = HttpExchange()
    call = plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id})
    return exchange, asyncio.create_task(handlers.events(plane, call))


async def test_a_poll_is_one_request_to_nats(plane, monkeypatch):
    job_id = (await submitted(plane))["id"]
    requests = []
    request = plane.nats.request

    async def counted(subject, *arguments, **more):
        requests.append(subject)
        return await request(subject, *arguments, **more)

    monkeypatch.setattr(plane.nats, "request", counted)
    await ask(plane, handlers.status, id=job_id)
    assert len(requests) == 1, requests


async def test_progress_is_pushed_and_not_polled(plane, monkeypatch):
    job_id = (await submitted(plane))["id"]
    exchange = HttpExchange()
    serving = asyncio.create_task(
        handlers.events(plane, plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id}))
    )
    await exchange.until(b'"state":"queued"')
    requests = []
    request = plane.nats.request

    async def counted(subject, *arguments, **more):
        requests.append(subject)
        return await request(subject, *arguments, **more)

    monkeypatch.setattr(plane.nats, "request", counted)
    await asyncio.sleep(0.5)
    assert requests == []
    monkeypatch.undo()
    await change(plane, job_id, state="completed", result=1)
    await asyncio.wait_for(serving, 20)


async def until_unwatched(plane):
    """Wait until no consumer is left of what was followed."""
    async with asyncio.timeout(20):
        while await plane.js.consumers_info(f"KV_{JOBS_BUCKET}"):
            await asyncio.sleep(0.05)


async def test_a_client_that_disconnects_ends_the_watch(plane):
    job_id = (await submitted(plane))["id"]
    exchange = HttpExchange()
    serving = asyncio.create_task(
        handlers.events(plane, plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id}))
    )
    await exchange.until(b'"state":"queued"')
    exchange.leave()
    await asyncio.wait([serving], timeout=20)
    assert isinstance(serving.exception(), ClientGone)
    await until_unwatched(plane)


async def test_an_idle_stream_of_progress_beats_and_notices_a_change_that_it_missed(plane, monkeypatch):
    monkeypatch.setattr(plane, "config", replace(plane.config, sse_heartbeat_s=0.2))
    job_id = (await submitted(plane))["id"]
    exchange = HttpExchange()
    serving = asyncio.create_task(
        handlers.events(plane, plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id}))
    )
    await exchange.until(b'"state":"queued"')
    for consumer in await plane.js.consumers_info(f"KV_{JOBS_BUCKET}"):  # as a restart of NATS loses it
        await plane.js.delete_consumer(f"KV_{JOBS_BUCKET}", consumer.name)
    await change(plane, job_id, state="completed", result=1)
    await asyncio.wait_for(serving, 20)
    assert b":\n\n" in exchange.body
    assert b'"state":"completed"' in exchange.body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plane: plane.change_key(revoked_at=1.0), "key-revoked"),
        (lambda plane: plane.change_tier([], scopes=["publish:*"]), "forbidden"),
        (lambda plane: [one.close(Refused(Reason.DRAINING)) for one in plane.connections], None),
    ],
    ids=["revoked", "right of the tier", "drained"],
)
async def test_who_may_follow_a_job_no_longer_is_told_why(plane, change, reason):
    job_id = (await submitted(plane))["id"]
    exchange = HttpExchange()
    right = Right(Verb.JOBS, "work")
    plane.change_key(scopes=["jobs:*"])
    call = plane.call(Protocol.SSE, peer=exchange, parameters={"id": job_id}, rights=(right,))
    serving = asyncio.create_task(handlers.events(plane, call))
    await exchange.until(b'"state":"queued"')
    change(plane)
    reply = await asyncio.wait_for(serving, 20)
    assert exchange.is_ended
    if reason is None:  # EventSource comes back by itself
        assert b"event: error" not in exchange.body
    else:
        assert b'event: error\ndata: {"type":"/docs/refusals#' + reason.encode() in exchange.body
    assert reply.refused is call.connection.closing
    plane.connections.closed(call.connection)


async def test_jobs_that_cannot_be_reached_are_a_503_with_a_time_to_come_back(plane, monkeypatch):
    async def away(*_):
        raise TimeoutError

    monkeypatch.setattr(plane.js, "key_value", away)
    with pytest.raises(Refused) as info:
        await ask(plane, handlers.submit, type="work", body=b"{}")
    assert (info.value.reason, info.value.retry_after_s) == (Reason.OVERLOADED, 1)
