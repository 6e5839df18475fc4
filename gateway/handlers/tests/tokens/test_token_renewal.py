"""A newer credential of an open connection, sent in band."""

import asyncio
import time

import pytest
from websockets.exceptions import InvalidStatus

from gateway.credentials.api_keys import new_key
from gateway.handlers.tests.tokens.token_clients import (
    TOKENS_ALONE,
    by_socket,
    closed,
    heard,
    is_served,
    say,
)
from gateway.tests.identity_provider import private_key, token


async def test_a_newer_token_extends_a_connection(plane, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 1800)) as socket:
        later = time.time() + 7200
        await say(socket, type="auth", token=token(exp=later), ref="7")
        assert await heard(socket, "authenticated") == {"type": "authenticated", "expires_at": later, "ref": "7"}
        an_hour_later()
        await is_served(socket)
        await asyncio.sleep(0.3)
        await is_served(socket)


async def test_a_newer_token_that_ends_sooner_ends_the_connection_sooner(plane, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 7200)) as socket:
        await say(socket, type="auth", token=token(exp=time.time() + 1800))
        await heard(socket, "authenticated")
        an_hour_later()
        assert await closed(socket) == (3000, "token-expired")


@pytest.mark.parametrize(
    ("shown", "reason", "cause"),
    [
        (lambda plane: token("bolt"), "forbidden", "auth-other-consumer"),
        (lambda plane: plane.other_key.text, "forbidden", "auth-other-consumer"),
        (lambda plane: token(key=private_key("stranger")), "unauthenticated", "token-signature"),
        (lambda plane: token(exp=1), "unauthenticated", "token-expired"),
        (lambda plane: "nonsense", "unauthenticated", "key-malformed"),
        (lambda plane: token(filler="x" * 9000), "invalid-request", "credential-malformed"),
        (lambda plane: 7, "invalid-request", "malformed-request"),
    ],
    ids=["another consumer's token", "another consumer's key", "forged", "expired", "nonsense", "too long", "no text"],
)
async def test_an_invalid_credential_is_refused_and_changes_nothing(plane, shown, reason, cause, an_hour_later):
    async with by_socket(plane, token(exp=time.time() + 1800)) as socket:
        (connection,) = plane.connections
        await say(socket, type="auth", token=shown(plane), ref="1")
        error = await heard(socket, "error")
        assert (error["reason"], error["ref"]) == (reason, "1")
        assert reason == "invalid-request" or connection.refusals == {cause: 1}
        await is_served(socket)
        assert connection.call.caller.consumer == "acme"
        an_hour_later()
        assert await closed(socket) == (3000, "token-expired")


async def test_guessing_in_band_is_stopped_as_anywhere(plane):
    async with by_socket(plane, token()) as socket:
        for _ in range(20):
            await say(socket, type="auth", token=new_key(b"another pepper").text)
            assert (await heard(socket, "error"))["reason"] == "unauthenticated"
        await say(socket, type="auth", token=new_key(b"another pepper").text)
        assert (await heard(socket, "error"))["reason"] == "rate-limited"
        # A signature cannot be guessed: a forged token is refused for itself alone.
        await say(socket, type="auth", token=token(key=private_key("stranger")))
        assert (await heard(socket, "error"))["reason"] == "unauthenticated"
        await is_served(socket)


async def test_a_connection_may_go_from_a_key_to_a_token_and_back(plane, an_hour_later):
    async with by_socket(plane, plane.key.text) as socket:
        await say(socket, type="auth", token=token(exp=time.time() + 1800))
        await heard(socket, "authenticated")
        await say(socket, type="auth", token=plane.key.text)
        assert (await heard(socket, "authenticated"))["expires_at"] is None
        an_hour_later()
        await asyncio.sleep(0.3)
        await is_served(socket)


async def test_a_route_that_takes_tokens_alone_takes_no_key_in_band_either(plane):
    with pytest.raises(InvalidStatus):
        async with by_socket(plane, plane.key.text, "/tokens"):
            pass
    plane.snapshot.apply([("key", plane.key.id, {**plane._key_document("acme", plane.key), "scopes": ["*"]})])
    with pytest.raises(InvalidStatus) as caught:
        async with by_socket(plane, plane.key.text, "/tokens"):
            pass
    assert caught.value.response.status_code == 401
    async with by_socket(plane, token(), "/tokens") as socket:
        await heard(socket, "welcome")
        await say(socket, type="auth", token=plane.key.text)
        assert (await heard(socket, "error"))["reason"] == "unauthenticated"
        await is_served(socket)


async def test_a_route_that_takes_tokens_alone_from_now_on_lets_go_of_keys(plane):
    plane.snapshot.apply([("key", plane.key.id, {**plane._key_document("acme", plane.key), "scopes": ["*"]})])
    plane.snapshot.apply([("route", "tokens", {**TOKENS_ALONE, "policies": []})])
    async with by_socket(plane, plane.key.text, "/tokens") as by_a_key, by_socket(plane, token(), "/tokens") as mine:
        await heard(mine, "welcome")
        plane.snapshot.apply([("route", "tokens", TOKENS_ALONE)])
        assert await closed(by_a_key) == (3000, "unauthenticated")
        await is_served(mine)
