"""What scopes cover, and which operation a call's headers name."""

import time

import pytest

from gateway.identity.rights import allowed, conflated_s, lacking, require
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb

ROUTE = Right(Verb.CALL, "tools")


def principal_with(*scopes, ceiling=None):
    return Principal(consumer="c", key="k", tier="t", scopes=scopes, ceiling=ceiling)


def lacks(scopes, *headers, right=ROUTE, ceiling=None):
    return str(lacking(principal_with(*scopes, ceiling=ceiling), (right,), list(headers)) or "")


CALL_WEATHER = ((b"mcp-method", b"tools/call"), (b"mcp-name", b"get_weather"))
PING = ((b"mcp-method", b"ping"),)


@pytest.mark.parametrize(
    ("scopes", "headers", "missing"),
    [
        (["call:tools"], CALL_WEATHER, ""),
        (["call:*"], CALL_WEATHER, ""),
        (["call:tools*"], CALL_WEATHER, ""),
        (["call:tools#tools/call:get_weather"], CALL_WEATHER, ""),
        (["call:tools#tools/call:*"], CALL_WEATHER, ""),
        (["call:tools#*"], CALL_WEATHER, ""),
        (["call:tools#ping", "call:tools#tools/call:get_weather"], CALL_WEATHER, ""),
        (["call:tools#ping"], PING, ""),
        (["call:tools#ping"], CALL_WEATHER, "call:tools#tools/call:get_weather"),
        (["call:tools#tools/call:get_time"], CALL_WEATHER, "call:tools#tools/call:get_weather"),
        (["call:tools#tools/call:get_weather"], PING, "call:tools#ping"),
        (["call:other#tools/call:get_weather"], CALL_WEATHER, "call:tools#tools/call:get_weather"),
        (["call:tools#tools/call:get_weather"], (), "call:tools"),
        (["call:tools#tools/call:get_weather"], CALL_WEATHER[1:], "call:tools"),
        (["call:tools#*"], (), "call:tools"),
        (["call:tools#tools/call:get_weather"], (*CALL_WEATHER, (b"mcp-name", b"rm")), "call:tools"),
        (["call:tools#*"], (*CALL_WEATHER, (b"mcp-method", b"tools/call")), "call:tools"),
        (["publish:tools#*"], CALL_WEATHER, "call:tools#tools/call:get_weather"),
        ([], CALL_WEATHER, "call:tools#tools/call:get_weather"),
    ],
)
def test_a_right_to_one_operation_is_a_right_to_that_one(scopes, headers, missing):
    assert lacks(scopes, *headers) == missing


RM = ((b"mcp-method", b"tools/call"), (b"mcp-name", b"rm"))
TO_RM, TO_WEATHER = "call:tools#tools/call:rm", "call:tools#tools/call:get_weather"


@pytest.mark.parametrize(
    ("scopes", "ceiling", "headers", "missing"),
    [
        ([TO_RM], [TO_WEATHER], RM, TO_RM),
        ([TO_RM], [TO_WEATHER], CALL_WEATHER, TO_WEATHER),
        (["call:tools"], [TO_WEATHER], RM, TO_RM),
        ([TO_RM], ["call:tools"], RM, ""),
        (["call:tools"], [TO_RM], RM, ""),
        ([TO_RM], [], RM, TO_RM),
        ([TO_RM], None, RM, ""),
    ],
)
def test_a_tier_bounds_the_operations_of_its_keys(scopes, ceiling, headers, missing):
    assert lacks(scopes, *headers, ceiling=None if ceiling is None else tuple(ceiling)) == missing


def test_headers_name_operations_of_routes_alone():
    right = Right(Verb.PUBLISH, "a")
    assert lacks(["publish:a#ping"], *PING, right=right) == "publish:a"


@pytest.mark.parametrize(
    ("scope", "right", "covers"),
    [
        ("publish:*/a/*/b", "publish:x/a/y/a/z/b", True),
        ("publish:*/a/*/b", "publish:x/a/b", False),
        ("publish:*a", "publish:aaa", True),
        ("publish:a*a", "publish:a", False),
        ("publish:*/{id}/end", "publish:x/y/z/end", True),
        ("publish:*/{id}/b/*", "publish:x/1/c/2/b/3", True),
        ("publish:{id}", "publish:a/b", False),
        ("publish:{id}", "publish:", False),
        ("publish:{a}/{b}", "publish:x/y", True),
        ("publish:{a}*b", "publish:abb", True),
        ("publish:{a}*", "publish:/b", False),
        ("publish:*/{a}*/{b}", "publish:x/y/z", True),
        ("publish:*/{id}", "publish:x/abc", True),
        ("publish:**", "publish:x", True),
        ("publish:a.c", "publish:abc", False),
        ("publish:my room/{x}", "publish:my room/warm day", True),
        ("subscribe:files/{path...}", "subscribe:files/a/b", True),
        ("subscribe:files/{path...}", "subscribe:files/", True),
        ("subscribe:files/{path...}", "subscribe:files", False),
        ("subscribe:files/{path...}", "subscribe:files/#", True),
        ("subscribe:files/{path...}", "subscribe:files/{path...}", True),
        ("subscribe:files/{x}", "subscribe:files/#", False),
        ("subscribe:files/{x}", "subscribe:files/{path...}", False),
        ("subscribe:{x}", "subscribe:#", False),
        ("subscribe:files/{x}", "subscribe:files/#a", True),
        ("subscribe:files/{x}", "subscribe:files/+", True),
        ("subscribe:files/{x}/b", "subscribe:files/a\nc/b", True),
    ],
)
def test_wildcards_find_what_they_could(scope, right, covers):
    verb, name = right.split(":", 1)
    assert allowed(principal_with(scope), Right(Verb(verb), name)) is covers


@pytest.mark.parametrize("scope", ["call:" + "a*" * 120 + "b", "call:" + "*{x}" * 60, "call:*/" + "{x}/*/" * 40 + "b"])
def test_no_scope_makes_matching_slow(scope):
    started = time.process_time()
    assert not allowed(principal_with(scope), Right(Verb.CALL, "a/" * 4000 + "c"))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("scopes", "ceiling", "interval_s"),
    [
        (["subscribe:*"], None, 0),
        (["subscribe:trades?conflate=1s"], None, 1),
        (["subscribe:*"], ["subscribe:*?conflate=500ms"], 0.5),
        (["subscribe:trades?conflate=2s"], ["subscribe:*?conflate=1s"], 2),
        (["subscribe:trades?conflate=2s", "subscribe:*?conflate=1s"], None, 1),
        (["subscribe:trades", "subscribe:*?conflate=1s"], None, 0),
        (["subscribe:*?conflate=soon"], None, 3600),
    ],
)
def test_a_right_may_give_the_latest_event_of_each_interval_alone(scopes, ceiling, interval_s):
    caller = Principal("acme", "k", "gold", tuple(scopes), tuple(ceiling) if ceiling else None)
    right = Right(Verb.SUBSCRIBE, "trades")
    assert allowed(caller, right)
    assert conflated_s(caller, right) == interval_s


def test_a_principal_without_the_right_is_not_conflated():
    assert conflated_s(principal_with("publish:*", ceiling=()), Right(Verb.SUBSCRIBE, "trades")) == 0


@pytest.mark.parametrize(
    ("scopes", "ceiling", "names_tier"),
    [((), None, False), ((), (), False), (("publish:*",), ("publish:news",), True)],
)
def test_a_refusal_names_the_missing_scope_and_whether_the_tier_withholds_it(scopes, ceiling, names_tier):
    with pytest.raises(Refused) as caught:
        require(principal_with(*scopes, ceiling=ceiling), Right(Verb.PUBLISH, "trades"))
    assert caught.value.reason is Reason.FORBIDDEN
    assert "`publish:trades`" in caught.value.detail
    assert ("tier" in caught.value.detail) is names_tier


def test_a_covered_right_is_not_refused():
    require(principal_with("publish:*"), Right(Verb.PUBLISH, "trades"))
