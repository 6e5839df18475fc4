import asyncio
import contextlib
import shutil

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from gateway.link.nats import connect
from gateway.tests.nats_server import NatsServer


class Emptiable(NatsServer):
    """A NATS server that can lose its data."""

    def __init__(self, folder):
        super().__init__(folder)
        self._folder = folder

    def empty(self):
        self.kill()
        shutil.rmtree(self._folder / "jetstream", ignore_errors=True)
        self.start()


@pytest.fixture
def nats_server(tmp_path, settings):
    """Return a NATS server of this test alone, which the settings name."""
    server = Emptiable(tmp_path)
    server.start()
    settings.NATS_URL = server.url
    yield server
    server.kill()


@pytest.fixture
async def link(nats_server):
    client, js = await connect(nats_server.url, "tests")
    yield client, js
    await client.close()
    await sync_to_async(connections.close_all)()


async def in_thread(function, *arguments, **named):
    """Call a function that uses the database and NATS as a view does: in a thread without an event loop."""

    def call():
        try:
            return function(*arguments, **named)
        finally:
            connections.close_all()

    return await asyncio.to_thread(call)


@contextlib.asynccontextmanager
async def running(part, client, js):
    """Run a part of the projector, as its process does, until the block is left."""
    stop = asyncio.Event()

    async def keep():
        while not stop.is_set():
            try:
                await part(client, js, stop)
            except Exception:
                await asyncio.sleep(0.05)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def until(promise, timeout_s=20.0):
    """Wait until a coroutine function returns a true value, and return it."""
    async with asyncio.timeout(timeout_s):
        while not (answer := await promise()):
            await asyncio.sleep(0.02)
        return answer
