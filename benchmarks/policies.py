"""What each policy costs a call, beside what the call costs anyway: in one process, without sockets around it.

Each call has a JSON body and gets a JSON answer. Prints microseconds a call, by policy, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import redis.asyncio as redis
import uvloop

from gateway.call import Call, Reply
from gateway.config import Config
from gateway.handle import Dispatcher
from gateway.limiter import Limiter
from gateway.protocol import Protocol
from gateway.protocols.exchange import Exchange
from gateway.snapshot.picture import Policy, Route
from gateway.snapshot.principal import Principal
from gateway.tests.policed import policies_for
from gateway.wire.header_fields import Headers

CALLS, ROUNDS = 500, 30
BODY = b'{"symbol":"ACME","quantity":2,"note":"as soon as it can be had","tags":["a","b","c"]}'
ANSWER = b'{"symbol":"ACME","price":104.2,"at":1795469806.4,"internal":{"desk":7}}'
SCHEMA = {
    "type": "object",
    "properties": {"symbol": {"type": "string", "pattern": "^[A-Z]{1,6}$"}, "quantity": {"type": "integer"}},
    "required": ["symbol", "quantity"],
}
LIMIT_OF = "benchmarks.policies:limit_of"
os.environ["HOOK_MODULES"] = "demo, benchmarks"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "api-key": ("api-key", {}),
    "ip-restriction, one network": ("ip-restriction", {"allow": ["127.0.0.0/8"]}),
    "request-size-limit": ("request-size-limit", {"max_bytes": 65536}),
    "set-headers, one": ("set-headers", {"headers": {"X-Region": "eu"}}),
    "remove-headers, one": ("remove-headers", {"headers": ["X-Region"]}),
    "cors, from another origin": ("cors", {"allowed_origins": ["https://app.example"]}),
    "rate-limit by user": ("rate-limit", {"rateLimitBy": "user", "requestsAllowed": 10**9, "timeWindowMinutes": 1}),
    "rate-limit by a plain function": (
        "rate-limit",
        {"rateLimitBy": "function", "function": "benchmarks.policies:limit_of"},
    ),
    "validate a body": ("validate", {"schema": SCHEMA}),
    "validate an answer": ("validate", {"outbound_schema": {"required": ["price"]}}),
    "transform a body": ("transform", {"inbound": {"remove": ["/note"], "set": {"/source": "web"}}}),
    "transform an answer": ("transform", {"outbound": {"remove": ["/internal"]}}),
    "custom, a plain function": ("custom", {"function": "demo.hooks:add_region"}),
    "custom, an async function": (
        "custom",
        {"function": "demo.hooks:stamp", "on": "outbound", "body": True},
    ),
}
WHO = Principal("bench", "k", "bench", metadata={"tenant": "bench", "trusted": False})


def limit_of(call: Any) -> dict[str, Any]:
    """Return a limit that is never reached."""
    return {"key": call.principal.metadata["tenant"], "amount": 1e9, "per": 60}


class Memory(Exchange):
    """An exchange whose caller is here."""

    __slots__ = ()

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Take a part of the answer."""

    async def _part(self) -> bytes:
        self.is_read = True
        return BODY

    async def _head(self, status: int, headers: Headers) -> None:
        return


async def upstream(call: Call) -> Reply:
    """Read the body and answer."""
    while await call.peer.read():
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await call.peer.start(200, headers)
    await call.peer.send(ANSWER, more=False)
    return Reply(status=200)


async def costs(redis_url: str) -> dict[str, float]:
    """Measure all policies in turn, round by round; gives how much more the best round took than without."""
    config = Config(
        "bench", "web", Path(), "", redis_url, b"", b"", "http://bench", outbound_allowed_networks=(ip_network("::/0"),)
    )
    client = redis.Redis.from_url(redis_url)
    limiter = Limiter(client, owner="bench")
    await limiter.start()
    snapshot = SimpleNamespace(current_principal=lambda principal: principal)
    plane: Any = SimpleNamespace(config=config, limiter=limiter, snapshot=snapshot)
    plane.policies = policies_for(plane)
    plane.dispatcher = Dispatcher(plane.policies, limiter, upstream)
    routes = {"": _route(()), **{name: _route((Policy(*named),)) for name, named in CASES.items()}}
    best = dict.fromkeys(routes, float("inf"))
    for _ in range(ROUNDS):
        for name, route in routes.items():
            best[name] = min(best[name], await _measured(plane, route))
    await limiter.stop()
    await client.aclose()
    return {name: (best[name] - best[""]) * 1e6 for name in CASES}


def _route(policies: tuple[Policy, ...]) -> Route:
    return Route("bench", "/bench", ("POST",), "http", {"type": "upstream", "url": "http://127.0.0.1:1"}, policies)


async def _measured(plane: Any, route: Route) -> float:
    """Return the CPU seconds of one call, without those of other processes."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(BODY)).encode()),
        (b"x-region", b"us"),
    ]
    began = time.process_time()
    for _ in range(CALLS):
        call = Call(Protocol.HTTP, "/bench", "127.0.0.1", "upstream", "bench", "POST", headers=headers, principal=WHO)
        call.route, call.origin = route, "https://app.example"
        call.peer = Memory(plane, call)
        reply = await plane.dispatcher.handle(call)
        if reply.status != 200:
            raise RuntimeError(f"a call was answered with {reply.status}")
    return (time.process_time() - began) / CALLS


if __name__ == "__main__":
    print(json.dumps(uvloop.run(costs(sys.argv[1]))))
