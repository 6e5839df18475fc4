"""The light parts of an HTTP connection do what uvicorn's do."""

import asyncio
from collections import deque

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.server.flow import Flow, Waiting


class Transport:
    def __init__(self):
        self.is_reading = True

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


@pytest.mark.parametrize("kind", [FlowControl, Flow])
async def test_what_is_sent_waits_while_the_client_does_not_read(kind):
    flow = kind(Transport())
    await flow.drain()
    for _ in range(2):
        flow.pause_writing()
        waiting = [asyncio.create_task(flow.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert flow.write_paused
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        flow.resume_writing()
        flow.resume_writing()
        await waiting[1]
        assert not flow.write_paused
        await flow.drain()


@pytest.mark.parametrize("kind", [FlowControl, Flow])
def test_reading_is_paused_and_resumed(kind):
    transport = Transport()
    flow = kind(transport)
    flow.pause_reading()
    assert (flow.read_paused, transport.is_reading) == (True, False)
    flow.resume_reading()
    assert (flow.read_paused, transport.is_reading) == (False, True)


@pytest.mark.parametrize("kind", [deque, Waiting])
def test_requests_wait_in_their_order(kind):
    waiting = kind()
    for number in range(3):
        waiting.appendleft(number)
    assert [waiting.pop() for _ in range(3)] == [0, 1, 2]
    assert not waiting


@pytest.mark.parametrize("name", ["pause_reading", "resume_reading", "pause_writing", "resume_writing", "drain"])
def test_nothing_else_of_uvicorns_flow_control_is_left_out(name):
    assert callable(getattr(Flow, name))
    assert {attribute for attribute in vars(FlowControl(Transport())) if not attribute.startswith("_")} == {
        "read_paused", "write_paused",
    }  # fmt: skip
