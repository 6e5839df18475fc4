"""An issuer of tokens: it signs them, and publishes its keys over real HTTP, or misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from gateway.authenticate import Authenticator
from gateway.identity.jwks import KeySets
from gateway.snapshot.picture import Snapshot
from gateway.tests.http_plane import Asked, Upstream, say, upstream_that
from gateway.upstream.client import UpstreamClient

ISS = "https://id.example/"
AUDIENCE = "api"
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def private_key(kid: str, algorithm: str = "RS256") -> Any:
    """Make a key once for all tests."""
    return _made(kid, algorithm)


@cache
def _made(kid: str, algorithm: str) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed448.Ed448PrivateKey.generate() if kid == "ed448" else ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(kid: str = "k1") -> bytes:
    return (
        private_key(kid)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(kid: str | None = "k1", algorithm: str = "RS256", **more: Any) -> dict[str, Any]:
    public = private_key(more.pop("of", kid or "k1"), algorithm).public_key()
    kind = jwt.get_algorithm_by_name(algorithm)
    reply = kind.to_jwk(public, as_dict=True)
    for name in ("key_ops", "use", "alg"):
        reply.pop(name, None)
    return reply | ({"kid": kid} if kid is not None else {}) | more


def claims(consumer: str = "acme", **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    reply = {"iss": ISS, "aud": AUDIENCE, "sub": consumer, "exp": time.time() + 300, "scope": "call:* subscribe:*"}
    return {name: value for name, value in {**reply, **more}.items() if value is not None}


def token(
    consumer: str = "acme",
    *,
    kid: str | None = "k1",
    algorithm: str = "RS256",
    key: Any = None,
    headers: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    key = key or private_key(kid or "k1", algorithm)
    extra = {**({"kid": kid} if kid is not None else {}), **(headers or {})}
    return jwt.encode(claims(consumer, **more), key, algorithm=algorithm, headers=extra)


def key_set(*keys: dict[str, Any]) -> str:
    body = json.dumps({"keys": list(keys)})
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"


Answer = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]]


class IdentityProvider:
    """Where the keys are. ``answer`` may be replaced by something worse."""

    def __init__(self) -> None:
        self.server: Upstream
        self.answer: Answer
        self.publish(jwk("k1"))

    def publish(self, *keys: dict[str, Any]) -> None:
        self.answer = say(key_set(*keys))

    @property
    def url(self) -> str:
        return f"{self.server.url}/jwks"

    @property
    def requests(self) -> int:
        return len(self.server.requests)

    def document(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "idp",
            "issuer": ISS,
            "jwks_url": self.url,
            "audience": AUDIENCE,
            "algorithms": ["RS256"],
            "consumer_claim": "sub",
            **more,
        }


@asynccontextmanager
async def identity_provider() -> AsyncIterator[IdentityProvider]:
    made = IdentityProvider()

    async def answer(requested: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
        return await made.answer(requested, reader, writer)

    async with upstream_that(answer) as server:
        made.server = server
        yield made


def config(**settings: Any) -> Any:
    """Settings of the parts that prove tokens."""
    known = {
        "outbound_allowed_networks": (),
        "own_endpoints": frozenset(),
        "upstream_connect_timeout_s": 5,
        "upstream_first_byte_timeout_s": 30,
        "upstream_idle_timeout_s": 300,
        "jwks_refresh_s": 600.0,
        "jwks_max_age_s": 86_400.0,
        "jwks_timeout_s": 5.0,
        "jwks_wait_s": 5.0,
        "jwks_max_bytes": 256 * 1024,
        "key_pepper": b"pepper",
        "failed_keys_per_minute": 1000,
    }
    return SimpleNamespace(**{**known, **settings})


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def proving(*issuers: dict[str, Any], **settings: Any) -> AsyncIterator[Any]:
    """Have the parts of a plane that prove tokens of these issuers."""
    settled = config(**settings)
    snapshot = Snapshot.from_documents(
        {
            "tier": [{"name": "free"}, {"name": "gold"}],
            "consumer": [
                {"name": "acme", "tier": "free", "metadata": {"region": "eu"}},
                {"name": "bolt", "tier": "free"},
            ],
            "issuer": issuers,
        }
    )
    client, clock = UpstreamClient(settled), Clock()
    key_sets = KeySets(snapshot, client, settled, clock=clock)
    plane = SimpleNamespace(
        config=settled,
        snapshot=snapshot,
        upstreams=client,
        key_sets=key_sets,
        authenticator=Authenticator(settled, snapshot, key_sets, tickets=None),
        clock=clock,
    )
    key_sets.start()
    try:
        yield plane
    finally:
        await key_sets.stop()
        await client.close()
