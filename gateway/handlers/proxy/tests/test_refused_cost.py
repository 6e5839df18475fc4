"""Refused calls cost: the address before there is a verified key, the caller's requests afterwards."""

import random

import pytest

from gateway.credentials.api_keys import new_key
from gateway.tests.http_plane import PEPPER, ask, route, running

BURST = 10
SETTINGS = {"refused_per_minute": 6 * BURST, "failed_keys_per_minute": 1_000}
PREFLIGHT = ("origin: https://page.example", "access-control-request-method: GET")
REFUSED_CALLS = {
    401: lambda plane: ask(plane, "GET", "/echo", key=new_key(PEPPER)),
    404: lambda plane: ask(plane, "GET", "/nowhere", key=None),
    405: lambda plane: ask(plane, "DELETE", "/read", key=None),
    204: lambda plane: ask(plane, "OPTIONS", "/v1/me", *PREFLIGHT, key=None),
    200: lambda plane: ask(plane, "OPTIONS", "/echo", *PREFLIGHT, key=None),
}


def routes(url):
    return [route("echo", "/echo", f"{url}/echo"), route("read", "/read", f"{url}/read", methods=["GET"])]


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
async def plane(behind, tmp_path, request):
    async with running(tmp_path, routes(behind.url), is_direct=request.param, **SETTINGS) as plane:
        yield plane


@pytest.mark.parametrize("status", REFUSED_CALLS)
async def test_refused_calls_are_charged_to_their_address(plane, status):
    answers = [await REFUSED_CALLS[status](plane) for _ in range(BURST * 2)]
    assert {answer.status for answer in answers[:BURST]} == {status}
    assert answers[-1].status == 429
    assert int(answers[-1].header("retry-after")) >= 1
    # A caller with a valid key is served, also one that was not verified before.
    assert (await ask(plane, "GET", "/echo")).status == 200


async def test_a_caller_without_the_right_is_charged_for_the_request(behind, tmp_path):
    limit = {"metric": "requests", "amount": 3, "per": 3600}
    async with running(tmp_path, routes(behind.url), limits=[limit], scopes=["call:read"], **SETTINGS) as plane:
        statuses = [(await ask(plane, "GET", "/echo")).status for _ in range(5)]
    assert statuses[0] == 403
    assert statuses[-1] == 429


async def test_a_hostile_mix_makes_few_rows_and_short_caches(plane):
    chance = random.Random(13)
    for number in range(400):
        method = chance.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
        path = (
            chance.choice(("/", "/echo/", "/v1/channels/", "/v1/jobs/")) + f"{number}" + "x" * chance.choice((1, 7_000))
        )
        lines = chance.choice(((), PREFLIGHT, (f"x-{number}: {'y' * 500}",), ("authorization: Basic eDp5",)))
        key = chance.choice((None, new_key(PEPPER)))
        answer = await ask(plane, method, path, *lines, key=key)
        assert answer.status == 204 or 400 <= answer.status < 500
    assert len(plane.usage._tallies) < 40
    assert {label[4] for label in plane.usage._tallies} <= {"(unknown)", "/v1/jobs/{id}"}
    assert all(len(path) <= 255 for _, _, path in plane.snapshot._matches)
