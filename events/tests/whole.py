"""The planes together, as subscriptions need them: rows, relay, answers, and a real data plane called through ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.conf import settings

from audit import relay
from audit.data_plane_requests import serve_requests
from audit.tests.conftest import running, until
from consumers.services import create_consumer, create_tier
from events import dead_letter_intake
from events.data_plane_handlers import HANDLERS
from events.services import create_channel
from gateway.asgi import serve
from gateway.config import Config
from gateway.plane import Plane
from gateway.start import start
from keys.services import issue_key


@dataclass
class Whole:
    """A data plane and the control plane behind it."""

    plane: Plane
    link: tuple
    keys: dict

    async def call(self, method, path, body=None, *, by="acme", headers=(), left=None):
        """Make one request of a consumer. Gives its status, and its body read as JSON.

        The client disconnects when the event ``left`` is set.
        """
        path, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [
                (b"authorization", b"Bearer " + self.keys[by].encode()),
                (b"content-length", str(len(data)).encode()),
                *headers,
            ],
            "client": ("127.0.0.1", 1), "extensions": {},
        }  # fmt: skip
        requested, answer = asyncio.Queue(), []
        requested.put_nowait({"type": "http.request", "body": data, "more_body": False})

        async def receive():
            if left is None or not requested.empty():
                return await requested.get()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            answer.append(message)

        await serve(self.plane, scope, receive, send)
        text = b"".join(message.get("body", b"") for message in answer[1:])
        return answer[0]["status"], json.loads(text) if text else None

    async def subscribe(self, *, by="acme", **fields):
        """Make a subscription; gives it as the answer says it."""
        status, answer = await self.call("POST", "/v1/subscriptions", {"channel": "trades", **fields}, by=by)
        assert status == 201, answer
        return answer

    async def publish(self, *values, channel="trades", by="acme", **more):
        """Publish values in their order; gives their ids."""
        ids = []
        for value in values:
            status, answer = await self.call("POST", f"/v1/channels/{channel}/events", value, by=by, **more)
            assert status == 201, answer
            ids.append(answer["id"])
        return ids

    async def pull(self, subscription, query="", by="acme"):
        status, answer = await self.call("GET", f"/v1/subscriptions/{subscription['id']}/events?{query}", by=by)
        assert status == 200, answer
        return answer["results"]


def populate():
    tier = create_tier(name="free", by="test")
    keys = {}
    for name in ("acme", "bolt"):
        consumer = create_consumer(name=name, tier=tier, by="test")
        _, keys[name] = issue_key(consumer=consumer, scopes=["publish:*", "subscribe:*"], by="test")
    for address in ("trades", "sensors/{id}/reading"):
        create_channel(address=address, by="test")
    return keys


@contextlib.asynccontextmanager
async def running_whole(link, nats_url, redis_url, folder, **options):
    """Run both planes with two consumers and two channels."""
    keys = await sync_to_async(populate)()
    config = Config(
        process="test", kind="web", data_dir=folder, nats_url=nats_url, redis_url=redis_url,
        key_pepper=settings.KEY_PEPPER.encode(), secret_key=settings.SECRET_KEY.encode(),
        public_url="http://gateway.test", **options,
    )  # fmt: skip
    parts = (relay.run, dead_letter_intake.run, serve_requests(HANDLERS))
    async with contextlib.AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(running(part, *link))
        plane = await start(config)
        stack.push_async_callback(plane.stop)
        whole = Whole(plane, link, keys)
        await until(
            lambda: asyncio.sleep(0, plane.snapshot.channel("trades") and len(list(plane.snapshot.channels())) == 2)
        )
        await until(lambda: _answers(whole))
        yield whole


async def _answers(whole):
    status, _ = await whole.call("DELETE", "/v1/subscriptions/sub_none")
    return status == 404
