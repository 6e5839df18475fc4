"""Every invalid option of a policy is refused when the route is saved, by its path."""

import sys
from types import ModuleType

import pytest
from django.core.exceptions import ValidationError

from gateway.policies import KNOWN
from routes.validation import clean_policies

FUNCTION = "demo.hooks:limit_of"
BY_USER = {"rateLimitBy": "user", "requestsAllowed": 1, "timeWindowMinutes": 1}

GOOD = [
    ("api-key", {}), ("rate-limit", {}), ("rate-limit", BY_USER), ("rate-limit", BY_USER | {"metric": "messages_in"}),
    ("rate-limit", {"rateLimitBy": "function", "function": FUNCTION}),
    ("cors", {"allowed_origins": ["*"]}), ("ip-restriction", {"allow": ["192.0.2.0/24", "::1"]}),
    ("request-size-limit", {"max_bytes": 0}), ("validate", {"schema": {}}), ("validate", {"outbound_schema": {}}),
    ("set-headers", {"headers": {"X-A": "1"}, "on": "response"}), ("remove-headers", {"headers": ["X-A"]}),
    ("transform", {"inbound": {"set": {"": 1, "/a/*/b": None, "/a/-": {}}, "remove": ["/a/*"]}}),
    ("transform", {"outbound": {"rename": {"/a/*/b": "/a/*/c/d"}}}),
    ("custom", {"function": "demo.hooks:stamp", "on": "outbound", "body": True, "options": {"a": 1}}),
    ("tee", {"channel": "answers/{call}", "linger_s": 0}),
    ("placeholder", {"name": "credit-check", "stands_for": "./modules/credit"}),
]  # fmt: skip
BAD = [
    ("api-key", {"x": 1}, "x"),
    ("rate-limit", {"x": 1}, "rateLimitBy"),
    ("rate-limit", {"rateLimitBy": "moon"}, "rateLimitBy"),
    ("rate-limit", {"rateLimitBy": ["user"]}, "rateLimitBy"),
    ("rate-limit", BY_USER | {"requestsAllowed": 0}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"requestsAllowed": -1}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"requestsAllowed": 10**16}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"requestsAllowed": 10**400}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"requestsAllowed": float("nan")}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"requestsAllowed": True}, "requestsAllowed"),
    ("rate-limit", BY_USER | {"timeWindowMinutes": 0}, "timeWindowMinutes"),
    ("rate-limit", BY_USER | {"timeWindowMinutes": float("inf")}, "timeWindowMinutes"),
    ("rate-limit", BY_USER | {"timeWindowMinutes": None}, "timeWindowMinutes"),
    ("rate-limit", BY_USER | {"function": FUNCTION}, "function"),
    ("rate-limit", BY_USER | {"metric": "bytes_out"}, "metric"),
    ("rate-limit", {"rateLimitBy": "function"}, "function"),
    ("rate-limit", {"rateLimitBy": "function", "function": "os:system"}, "function"),
    ("cors", {"allowed_origins": "*"}, "allowed_origins"),
    ("cors", {"allowed_origins": ["*", 5]}, "allowed_origins[1]"),
    ("cors", {"allowed_origins": ["a\r\nb"]}, "allowed_origins[0]"),
    ("cors", {"allowed_origins": ["https://a.example", "https://a.example/"]}, "allowed_origins[1]"),
    ("cors", {"allowed_origins": ["a.example"]}, "allowed_origins[0]"),
    ("ip-restriction", {"allow": ["192.0.2.0/24", "elsewhere"]}, "allow[1]"),
    ("ip-restriction", {"deny": [1]}, "deny[0]"),
    ("request-size-limit", {}, "max_bytes"),
    ("request-size-limit", {"max_bytes": 1.5}, "max_bytes"),
    ("validate", {}, "schema"),
    ("validate", {"schema": "{}"}, "schema"),
    ("validate", {"schema": {"type": "strange"}}, "schema"),
    ("validate", {"schema": {"$ref": "http://127.0.0.1/x"}}, "schema"),
    ("validate", {"schema": {"pattern": "(?=a)b"}}, "schema"),
    ("validate", {"schema": {"enum": ["a" * 300_000]}}, "schema"),
    ("validate", {"outbound_schema": []}, "outbound_schema"),
    ("set-headers", {}, "headers"),
    ("set-headers", {"headers": {"a b": "1"}}, "headers.a b"),
    ("set-headers", {"headers": {"x": "a\nb"}}, "headers.x"),
    ("set-headers", {"headers": {"x": 1}}, "headers.x"),
    ("set-headers", {"headers": {"Content-Length": "1"}}, "headers.Content-Length"),
    ("set-headers", {"headers": {"X-Consumer-Name": "root"}}, "headers.X-Consumer-Name"),
    ("set-headers", {"headers": {}, "on": "both"}, "on"),
    ("remove-headers", {"headers": ["x", "Transfer-Encoding"]}, "headers[1]"),
    ("remove-headers", {"headers": ["content-length"]}, "headers[0]"),
    ("remove-headers", {"headers": "x"}, "headers"),
    ("remove-headers", {}, "headers"),
    ("transform", {}, "inbound"),
    ("transform", {"inbound": []}, "inbound"),
    ("transform", {"outbound": {"replace": {}}}, "outbound.replace"),
    ("transform", {"inbound": {"remove": ["a"]}}, "inbound.remove[0]"),
    ("transform", {"inbound": {"remove": [""]}}, "inbound.remove[0]"),
    ("transform", {"inbound": {"remove": "/a"}}, "inbound.remove"),
    ("transform", {"inbound": {"remove": ["/a" * 50]}}, "inbound.remove[0]"),
    ("transform", {"inbound": {"remove": ["/a"] * 101}}, "inbound"),
    ("transform", {"inbound": {"set": {"a": 1}}}, "inbound.set.a"),
    ("transform", {"inbound": {"set": {"/a": "x" * 20_000}}}, "inbound.set./a"),
    ("transform", {"inbound": {"rename": {"/a": 5}}}, "inbound.rename./a"),
    ("transform", {"inbound": {"rename": {"/a/*/b": "/b"}}}, "inbound.rename./a/*/b"),
    ("transform", {"inbound": {"rename": {"/a": "/*/b"}}}, "inbound.rename./a"),
    ("transform", {"inbound": {"rename": {"/*": "/*"}}}, "inbound.rename./*"),
    ("transform", {"inbound": {"remove": ["/a"]}, "on_other": "drop"}, "on_other"),
    ("custom", {}, "function"),
    ("tee", {}, "channel"),
    ("placeholder", {}, "name"),
    ("placeholder", {"name": "x", "stands_for": 5}, "stands_for"),
    ("tee", {"channel": "$SYS/a"}, "channel"),
    ("tee", {"channel": "a", "linger_s": -1}, "linger_s"),
    ("custom", {"function": 5}, "function"),
    ("custom", {"function": FUNCTION, "on": "sideways"}, "on"),
    ("custom", {"function": FUNCTION, "body": "yes"}, "body"),
    ("custom", {"function": FUNCTION, "options": []}, "options"),
]


@pytest.mark.parametrize(("type_", "options"), GOOD)
def test_valid_options_are_kept_unchanged(type_, options):
    assert clean_policies([{"type": type_, "options": options}]) == [
        {"type": type_, "options": options, "mode": "enforce"}
    ]


@pytest.mark.parametrize(("type_", "options", "at"), BAD, ids=lambda value: str(value)[:60])
def test_an_invalid_option_is_refused_by_its_path(type_, options, at):
    with pytest.raises(ValidationError) as fault:
        clean_policies([{"type": "api-key"}, {"type": type_, "options": options}])
    (message,) = fault.value.message_dict.items()
    assert message[0] == f"policies[1].options.{at}"
    assert message[1][0]


def test_every_policy_has_a_case():
    assert {type_ for type_, _ in GOOD} >= KNOWN.keys() - {"jwt"}  # jwt has its own page of tests


@pytest.mark.parametrize(
    "name",
    ["os:system", "subprocess:run", "builtins:eval", "sys:exit", "importlib:import_module", "gateway.hooks.api:dump",
     "apimgmt.env:text", "keys.services:issue_key", "nowhere:f", "demo.hooks:nothing", "demo.hooks:FREE", "demo.hooks",
     "demo.hooks:limit_of.x", ":f", "demo.hooks:", "../demo:f", "demo.hooks:__import__('os')", "demo..hooks:f",
     "a" * 300 + ":f",
     "demo.hooks:Refuse", None, ["demo.hooks:limit_of"]],
    ids=str,
)  # fmt: skip
def test_only_functions_of_hook_modules_can_be_named(name):
    with pytest.raises(ValidationError) as fault:
        clean_policies([{"type": "custom", "options": {"function": name}}])
    assert list(fault.value.message_dict) == ["policies[0].options.function"]


@pytest.mark.parametrize("fault", ["SystemExit", "KeyboardInterrupt", "ValueError"])
def test_a_module_that_fails_to_import_is_reported(tmp_path, monkeypatch, fault):
    monkeypatch.setenv("HOOK_MODULES", "broken_module_of_an_operator")
    (tmp_path / "broken_module_of_an_operator.py").write_text(f"raise {fault}('no')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(ValidationError, match=f"cannot be imported: {fault}"):
        clean_policies([{"type": "custom", "options": {"function": "broken_module_of_an_operator:f"}}])


def test_hook_modules_says_which_modules_may_be_named(monkeypatch):
    module = ModuleType("allowed_of_an_operator")
    module.f = lambda *arguments: None
    monkeypatch.setitem(sys.modules, "allowed_of_an_operator", module)
    named = [{"type": "custom", "options": {"function": "allowed_of_an_operator:f"}}]
    for value in (None, "", "demo, allowed_of"):
        monkeypatch.delenv("HOOK_MODULES", raising=False) if value is None else monkeypatch.setenv(
            "HOOK_MODULES", value
        )
        with pytest.raises(ValidationError, match="HOOK_MODULES does not allow"):
            clean_policies(named)
    monkeypatch.setenv("HOOK_MODULES", "demo.hooks, allowed_of_an_operator")
    assert clean_policies(named)
    assert clean_policies([{"type": "custom", "options": {"function": "demo.hooks:stamp"}}])
