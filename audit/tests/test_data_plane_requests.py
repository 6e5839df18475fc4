import asyncio
import threading

import pytest
from django.core.exceptions import ValidationError
from django.db import OperationalError

from audit import data_plane_requests as module
from audit.data_plane_requests import serve_requests
from audit.tests.conftest import running, until
from gateway.link.control_plane import request_control_plane
from gateway.refusals import Reason, Refused


async def serving(nc):
    try:
        return await request_control_plane(nc, "echo", {}) is not None
    except Refused:
        return False


def part(**answers):
    return serve_requests({"echo": lambda question: question, **answers})


async def refusal(nc, verb, question=None, **how):
    with pytest.raises(Refused) as caught:
        await request_control_plane(nc, verb, question or {}, **how)
    return caught.value


async def test_a_request_is_answered(link):
    nc, _ = link
    async with running(part(), *link):
        await until(lambda: serving(nc))
        for reply in ([1, "ü"], 10**40, -(2**63), 0.1, None):
            assert await request_control_plane(nc, "echo", {"a": reply}) == {"a": reply}


async def test_refusals_of_services_come_back_as_they_were(link, caplog):
    def gone(question):
        raise Refused(Reason.GONE, "It is over.", members={"oldest": "7"}, retry_after_s=2.5)

    def invalid(question):
        raise ValidationError({"url": "Is no address."})

    def locked(question):
        raise OperationalError("database is locked")

    def broken(question):
        raise RuntimeError("a secret of the inside")

    nc, _ = link
    async with running(part(gone=gone, invalid=invalid, locked=locked, broken=broken), *link):
        await until(lambda: serving(nc))
        reply = await refusal(nc, "gone")
        assert (reply.reason, reply.detail, reply.members, reply.retry_after_s) == (
            Reason.GONE, "It is over.", {"oldest": "7"}, 2.5,
        )  # fmt: skip
        assert (await refusal(nc, "invalid")).members["errors"] == {"url": ["Is no address."]}
        assert (await refusal(nc, "locked")).status == 503
        broken_said = await refusal(nc, "broken")
        assert broken_said.status == 500
        assert "secret" not in broken_said.detail
        assert (await refusal(nc, "unheard-of")).reason is Reason.NOT_FOUND


async def test_no_responder_and_a_slow_one_are_refused_within_the_deadline(link, nats_server):
    nc, _ = link
    assert (await refusal(nc, "echo")).cause == "control-plane-away"
    held = threading.Event()
    try:
        async with running(part(slow=lambda question: held.wait(20)), *link):
            await until(lambda: serving(nc))
            assert (await refusal(nc, "slow", timeout_s=0.2)).status == 503
            held.set()
    finally:
        held.set()
    nats_server.kill()
    await until(lambda: asyncio.sleep(0, not nc.is_connected))
    assert (await refusal(nc, "echo")).retry_after_s == 1


async def test_requests_beyond_the_maximum_are_refused_at_once(link, monkeypatch):
    monkeypatch.setattr(module, "REQUESTS_MAX", 2)
    nc, _ = link
    held, begun = threading.Event(), threading.Semaphore(0)

    def slow(question):
        begun.release()
        return held.wait(20)

    try:
        async with running(part(slow=slow), *link):
            await until(lambda: serving(nc))
            waiting = [asyncio.create_task(request_control_plane(nc, "slow", {}, 20)) for _ in range(2)]
            assert await asyncio.to_thread(lambda: begun.acquire(timeout=20) and begun.acquire(timeout=20))
            assert (await refusal(nc, "echo")).cause == "overloaded"
            held.set()
            assert await asyncio.gather(*waiting) == [True, True]
    finally:
        held.set()


async def test_two_control_planes_share_the_requests(link):
    nc, _ = link
    requested = []
    async with running(part(once=requested.append), *link), running(part(once=requested.append), *link):
        await until(lambda: serving(nc))
        for number in range(20):
            await request_control_plane(nc, "once", {"number": number})
    assert [question["number"] for question in requested] == [*range(20)]
