import asyncio
import itertools
import json
import socket
import time

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.credentials.public_keys import KEYS_MAX
from gateway.identity.jwks import FLOOR_S
from gateway.identity.tests.jwks.support import drip, hang, hang_up, pour, proved, refusal, settled, status
from gateway.refusals import Reason
from gateway.tests.http_plane import eventually, say
from gateway.tests.identity_provider import identity_provider, jwk, key_set, private_key, proving, token

HUGE = json.dumps({"keys": [], "filler": "x" * 300_000})


BAD_ANSWERS = {
    "not JSON": status(200, body="<html>"),
    "no keys": status(200, body='{"key": []}'),
    "keys that are no list": status(200, body='{"keys": {}}'),
    "a list": status(200, body="[]"),
    "too many keys": say(key_set(*[jwk()] * (KEYS_MAX + 1))),
    "huge": status(200, body=HUGE),
    "without end": pour,
    "a fault": status(500, body=json.dumps({"keys": []})),
    "nothing found": status(404, body=json.dumps({"keys": []})),
    "no content": say("HTTP/1.1 204 X\r\n\r\n"),
    "nothing": hang_up,
    "no HTTP": say("SSH-2.0-OpenSSH_9.6\r\n"),
    "slow": drip,
    "hung": hang,
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=list(BAD_ANSWERS))
async def test_a_key_set_that_cannot_be_read_leaves_callers_with_a_clear_answer(provider, answer):
    provider.answer = answer
    async with proving(provider.document(), jwks_timeout_s=0.3) as plane:
        refused = await refusal(plane, token())
        assert (refused.reason, refused.cause) == (Reason.OVERLOADED, "token-keys-away")
        assert 1 <= refused.retry_after_s <= FLOOR_S
        await eventually(lambda: provider.server.open == 0)
        assert plane.authenticator._failed_keys._failures == {}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=list(BAD_ANSWERS))
async def test_the_last_keys_serve_while_their_url_misbehaves(provider, answer):
    async with proving(provider.document(), jwks_timeout_s=0.3) as plane:
        await proved(plane, token())
        provider.answer = answer
        plane.clock.now_s += 601
        await settled(plane)
        assert provider.requests == 2
        assert await proved(plane, token(jti="another"))


async def test_a_redirect_is_not_followed(provider):
    async with identity_provider() as elsewhere:
        provider.answer = status(302, f"location: {elsewhere.url}")
        async with proving(provider.document()) as plane:
            assert (await refusal(plane, token())).cause == "token-keys-away"
    assert elsewhere.requests == 0


async def test_a_url_where_nobody_listens_leaves_callers_with_a_clear_answer(provider):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with proving(provider.document(jwks_url=f"http://127.0.0.1:{port}/jwks")) as plane:
        assert (await refusal(plane, token())).reason is Reason.OVERLOADED


async def test_a_link_local_address_is_never_connected_to(provider, monkeypatch):
    """Also where a name, harmless when it was saved, resolves to one."""
    loop = asyncio.get_running_loop()
    requested, tried = [], []

    async def getaddrinfo(host, port, **more):
        requested.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(loop, "sock_connect", lambda *_: tried.append(_))
    async with proving(provider.document(jwks_url="http://keys.example/jwks")) as plane:
        assert (await refusal(plane, token())).reason is Reason.OVERLOADED
    assert (requested, tried) == (["keys.example"], [])


async def test_keys_are_read_at_start_before_any_call_asks(provider):
    async with proving(provider.document()) as plane:
        await eventually(lambda: provider.requests == 1)
        await settled(plane)
        await proved(plane, token())
    assert provider.requests == 1
    assert provider.server.requests[0].target == "/jwks"
    assert provider.server.requests[0].header("authorization") == []


async def test_calls_that_come_before_the_first_keys_wait_and_share_one_look(provider):
    go_on = asyncio.Event()
    answer = provider.answer

    async def wait(*requested):
        await go_on.wait()
        return await answer(*requested)

    provider.answer = wait
    async with proving(provider.document()) as plane:
        calls = [asyncio.create_task(proved(plane, token(jti=str(number)))) for number in range(20)]
        await eventually(lambda: provider.requests)
        go_on.set()
        assert {principal.consumer for principal in await asyncio.gather(*calls)} == {"acme"}
    assert provider.requests == 1


async def test_a_call_waits_only_so_long_and_leaves_the_look_to_others(provider):
    provider.answer = hang
    async with proving(provider.document(), jwks_wait_s=0.05) as plane:
        started = time.monotonic()
        assert (await refusal(plane, token())).reason is Reason.OVERLOADED
        assert time.monotonic() - started < 4
        cancelled = asyncio.create_task(proved(plane, token()))
        await asyncio.sleep(0)
        await stop_tasks(cancelled)
        assert plane.key_sets._sets["idp"].task is not None
    assert provider.requests == 1


async def test_an_unknown_kid_makes_us_ask_at_most_once_in_30_s(provider):
    async with proving(provider.document()) as plane:
        await proved(plane, token())
        assert provider.requests == 1
        for number in range(50):
            refused = await refusal(plane, token(kid=f"unknown{number}", key=private_key("k1")))
            assert (refused.reason, refused.cause) == (Reason.UNAUTHENTICATED, "token-key-unknown")
        assert provider.requests == 2
        for number in range(50):
            plane.clock.now_s += FLOOR_S / 10
            await refusal(plane, token(kid=f"unknown{number}", key=private_key("k1")))
            await settled(plane)
        assert provider.requests == 7
        assert plane.authenticator._failed_keys._failures == {}


async def test_a_rotated_key_is_found_by_the_first_token_that_names_it(provider):
    """However short a while ago the set was read for another reason."""
    async with proving(provider.document()) as plane:
        await proved(plane, token())
        provider.publish(jwk("k1"), jwk("k2"))
        assert await proved(plane, token(kid="k2"))
        assert await proved(plane, token())
        assert provider.requests == 2


async def test_a_key_asked_for_too_early_is_looked_for_as_soon_as_allowed(provider):
    async with proving(provider.document()) as plane:
        await proved(plane, token())
        await refusal(plane, token(kid="unknown", key=private_key("k1")))
        provider.publish(jwk("k1"), jwk("k2"))
        plane.clock.now_s += FLOOR_S - 1
        requested = provider.requests
        assert (await refusal(plane, token(kid="k2"))).cause == "token-key-unknown"
        await settled(plane)
        assert provider.requests == requested
        plane.clock.now_s += 1
        await settled(plane)
        assert provider.requests == requested + 1
        assert await proved(plane, token(kid="k2"))


async def test_a_key_asked_for_too_early_does_not_put_off_the_next_look(provider):
    async with proving(provider.document(), jwks_refresh_s=1.0) as plane:
        await proved(plane, token())
        for number in range(2):
            await refusal(plane, token(kid=f"unknown{number}", key=private_key("k1")))
        assert provider.requests == 2
        plane.clock.now_s += 1
        await settled(plane)
        assert provider.requests == 3


async def test_a_url_that_is_away_is_not_asked_for_each_unknown_kid(provider):
    async with proving(provider.document()) as plane:
        await proved(plane, token())
        provider.answer = hang_up
        for number in range(50):
            refused = await refusal(plane, token(kid=f"unknown{number}", key=private_key("k1")))
            assert refused.cause == "token-keys-away"
            plane.clock.now_s += FLOOR_S / 100
            await settled(plane)
        assert provider.requests == 2


async def test_old_keys_serve_for_their_documented_age_and_no_longer(provider):
    async with proving(provider.document()) as plane:
        text = token(exp=time.time() + 10**6)
        await proved(plane, text)
        provider.answer = hang_up
        plane.clock.now_s += 86_400
        await settled(plane)
        assert await proved(plane, text)
        plane.clock.now_s += 1
        await settled(plane)
        assert (await refusal(plane, text)).cause == "token-keys-away"
        provider.publish(jwk("k1"))
        plane.clock.now_s += FLOOR_S
        await settled(plane)
        assert await proved(plane, text)


async def test_a_url_that_is_away_at_start_is_tried_again_soon_and_then_less_often(provider):
    provider.answer = hang_up
    async with proving(provider.document()) as plane:
        await eventually(lambda: provider.requests == 1)
        await settled(plane)
        times = []
        for _ in range(120):
            before = provider.requests
            plane.clock.now_s += 1
            await settled(plane)
            if provider.requests > before:
                times.append(plane.clock.now_s)
        gaps = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
        assert gaps == [2, 4, 8, 16, 30, 30]
        provider.publish(jwk("k1"))
        plane.clock.now_s += FLOOR_S
        await settled(plane)
        assert await proved(plane, token())


async def test_an_issuer_made_while_we_run_is_known_at_once(provider):
    async with proving() as plane:
        assert (await refusal(plane, token())).cause == "token-issuer-unknown"
        plane.snapshot.apply([("issuer", "idp", provider.document())])
        assert await proved(plane, token())


async def test_an_issuer_that_moves_is_asked_where_it_is_now(provider):
    async with identity_provider() as moved:
        moved.publish(jwk("k1", of="k2"))
        async with proving(provider.document()) as plane:
            await proved(plane, token())
            plane.snapshot.apply([("issuer", "idp", provider.document(jwks_url=moved.url))])
            assert (await refusal(plane, token())).cause == "token-signature"
            assert await proved(plane, token(key=private_key("k2")))


async def test_an_issuer_that_is_deleted_while_its_keys_are_waited_for_proves_nobody(provider):
    answer = provider.answer

    async def delete_meanwhile(*requested):
        plane.snapshot.apply([("issuer", "idp", None)])
        return await answer(*requested)

    provider.answer = delete_meanwhile
    async with proving(provider.document()) as plane:
        refused = await refusal(plane, token())
        assert refused.reason in (Reason.OVERLOADED, Reason.UNAUTHENTICATED)


async def test_the_keys_of_one_issuer_are_not_another_s(provider):
    async with identity_provider() as other:
        other.publish(jwk("k2"))
        second = other.document(name="second", issuer="https://second/")
        async with proving(provider.document(), second) as plane:
            assert await proved(plane, token(kid="k2", iss="https://second/"))
            assert (await refusal(plane, token(kid="k2"))).cause == "token-key-unknown"
            assert (await refusal(plane, token(iss="https://second/"))).cause == "token-key-unknown"


async def test_an_issuer_that_is_hung_holds_up_nobody_else(provider):
    async with identity_provider() as other:
        other.answer = hang
        second = other.document(name="second", issuer="https://second/")
        async with proving(provider.document(), second, jwks_wait_s=0.05) as plane:
            assert (await refusal(plane, token(iss="https://second/"))).reason is Reason.OVERLOADED
            assert await proved(plane, token())
