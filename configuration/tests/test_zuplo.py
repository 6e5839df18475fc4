import pytest

from configuration.importing import import_document
from configuration.tests.imports import document, handler, refusal_of, zuplo_of, zuplo_routes
from gateway.policies import KNOWN
from routes.models import Route


def test_zuplo_routes_are_read_with_their_handlers_and_paths():
    rewrite = zuplo_of({"handler": handler(rewritePattern="https://up.example/p/${params.id}")}, "/p/{id}")
    forward = zuplo_of({"handler": handler("urlForwardHandler", baseUrl="https://up.example/")}, "/f/:id/(.*)")
    forward["/f/:id/(.*)"]["x-zuplo-path"] = {"pathMode": "url-pattern"}
    found = [wanted.values for wanted in zuplo_routes(document({"openapi": "3.1.0", "paths": rewrite | forward}))]
    assert (found[0]["path"], found[0]["handler"]["url"]) == ("/p/{id}", "https://up.example/p/{id}")
    assert (found[1]["path"], found[1]["handler"]["url"]) == ("/f/{id}/{rest...}", "https://up.example/f/{id}/{rest}")
    assert [route["name"] for route in found] == ["x", "x-2"]


def test_the_token_policy_is_converted():
    (wanted,) = zuplo_routes(
        document(zuplo_of({"handler": handler(), "policies": {"inbound": ["open-id-jwt-auth-inbound"]}}))
    )
    assert wanted.values["policies"] == [{"type": "jwt"}]


def test_the_open_cors_policy_is_converted():
    (wanted,) = zuplo_routes(document(zuplo_of({"handler": handler(), "corsPolicy": "anything-goes"})))
    assert wanted.values["policies"] == [{"type": "cors", "options": {"allowed_origins": ["*"]}}]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        (
            {"handler": handler(), "policies": {"inbound": ["monetization-inbound"]}},
            "the policy monetization-inbound is not",
        ),
        ({"handler": handler(), "policies": {"inbound": [{"name": "x"}]}}, "inbound must be a list of names"),
        (
            {"handler": handler(), "policies": {"outbound": ["x"]}},
            "the policy x is not supported; these are: api-key-inbound",
        ),
        ({"handler": handler(), "policies": {"outbound": ["set-headers-inbound"]}}, "is inbound, not outbound"),
        (
            {"handler": handler(), "policies": {"inbound": ["request-size-limit-inbound"]}},
            "the policy request-size-limit-inbound: needs the option maxSizeInBytes; pass config/policies.json",
        ),
        ({"handler": handler(), "policies": {"inbound": ["custom-code-inbound"]}}, "its code is not Python"),
        ({"handler": handler("awsLambdaHandler")}, "the handler awsLambdaHandler is not the gateway's"),
        (
            {"handler": handler(rewritePattern="${env.BASE_URL}/x")},
            "${env.BASE_URL} has no value; give it with --env FILE",
        ),
        ({"handler": handler(forwardSearch=True)}, "has no URL"),
        ({"handler": handler(), "corsPolicy": "mine"}, "the CORS policy mine is defined in config/policies.json"),
        ({}, "must be a mapping"),
    ],
)
def test_what_only_zuplo_supports_is_refused_by_name(route, fault):
    assert fault in refusal_of(zuplo_of(route))


def defined(name, type_, **options):
    return {"name": name, "policyType": type_, "handler": {"export": "x", "module": "y", "options": options}}


PROJECT = [
    (defined("keys", "api-key-inbound", cacheTtlSeconds=60), {"type": "api-key"}),
    (defined("plain", "rate-limit-inbound"), {"type": "rate-limit"}),
    (
        defined("slow", "rate-limit-inbound", rateLimitBy="ip", requestsAllowed=2, timeWindowMinutes=1),
        {"type": "rate-limit", "options": {"rateLimitBy": "ip", "requestsAllowed": 2, "timeWindowMinutes": 1}},
    ),
    (
        defined("by-tier", "rate-limit-inbound", rateLimitBy="function", function="demo.hooks:limit_of"),
        {"type": "rate-limit", "options": {"rateLimitBy": "function", "function": "demo.hooks:limit_of"}},
    ),
    (
        defined("office", "ip-restriction-inbound", allowedIpAddresses=["192.0.2.0/24"], blockedIpAddresses=[]),
        {"type": "ip-restriction", "options": {"allow": ["192.0.2.0/24"], "deny": []}},
    ),
    (
        defined("office-2", "ip-address-restriction-inbound", deny=["192.0.2.1"]),
        {"type": "ip-restriction", "options": {"deny": ["192.0.2.1"]}},
    ),
    (
        defined("small", "request-size-limit-inbound", maxSizeInBytes=10, trustContentLengthHeader=True),
        {"type": "request-size-limit", "options": {"max_bytes": 10}},
    ),
    (
        defined("strict", "request-validation-inbound", validateBody="log-only", logLevel="info"),
        {"type": "validate", "options": {"schema": {"type": "object"}}, "mode": "shadow"},
    ),
    (
        defined("named", "set-headers-inbound", headers=[{"name": "X-A", "value": "1"}]),
        {"type": "set-headers", "options": {"headers": {"X-A": "1"}, "on": "request"}},
    ),
    (
        defined("clean", "remove-headers-inbound", headers=["X-B"]),
        {"type": "remove-headers", "options": {"headers": ["X-B"], "on": "request"}},
    ),
    (
        defined("mine", "custom-code-inbound", function="demo.hooks:add_region", region="eu"),
        {
            "type": "custom",
            "options": {
                "function": "demo.hooks:add_region",
                "on": "inbound",
                "body": False,
                "options": {"region": "eu"},
            },
        },
    ),
    (
        defined(
            "idp",
            "open-id-jwt-auth-inbound",
            issuer="https://idp.example",
            audience="api",
            jwkUrl="https://idp.example/k",
        ),
        {"type": "jwt", "options": {"issuers": ["idp"]}},
    ),
]


def project(named=None):
    named = [given["name"] for given, _ in PROJECT] if named is None else named
    route = {
        "handler": handler(),
        "policies": {"inbound": named, "outbound": ["safe", "quiet"]},
        "corsPolicy": "ours",
    }
    policies = [
        *(given for given, _ in PROJECT),
        defined("safe", "set-headers-outbound", headers=[{"name": "X-C", "value": "2"}]),
        defined("quiet", "remove-headers-outbound", headers=["Server"]),
    ]
    paths = zuplo_of(route)
    paths["/x"]["get"]["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    cors = [{"name": "ours", "allowedOrigins": ["https://a.example"]}]
    return paths, {"policies": policies, "corsPolicies": cors}


def test_the_policies_of_a_project_are_converted_in_order_with_their_options():
    paths, policies = project()
    together = zuplo_routes(document({"openapi": "3.1.0", "paths": paths, **policies}))
    assert zuplo_routes(document({"openapi": "3.1.0", "paths": paths}), document(policies)) == together
    issuer, wanted = together
    assert wanted.values["policies"] == [
        *(ours for _, ours in PROJECT),
        {"type": "set-headers", "options": {"headers": {"X-C": "2"}, "on": "response"}},
        {"type": "remove-headers", "options": {"headers": ["Server"], "on": "response"}},
        {"type": "cors", "options": {"allowed_origins": ["https://a.example"]}},
    ]
    assert issuer.section == "issuers"
    assert issuer.values["jwks_url"] == "https://idp.example/k"


@pytest.mark.django_db
def test_a_projects_policies_can_be_saved_and_imported_twice():
    paths, policies = project([given["name"] for given, ours in PROJECT if ours["type"] in KNOWN])
    import_document(document({"openapi": "3.1.0", "paths": paths, **policies}), by="manage.py import")
    assert [policy["type"] for policy in Route.objects.get().policies][-1] == "cors"
    assert not import_document(document({"openapi": "3.1.0", "paths": paths, **policies}), by="manage.py import")


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (defined("p", "monetization-inbound"), "the policy p is not supported; these are: api-key-inbound"),
        (defined("p", "api-key-inbound", allowUnauthenticatedRequests=True), "every route needs a credential"),
        (defined("p", "rate-limit-inbound", identifier={"export": "x"}, rateLimitBy="function"), "is not Python"),
        (defined("p", "rate-limit-inbound", sliding=True), "the option sliding is not supported"),
        (defined("p", "request-validation-inbound", validateHeaders="log-only"), "validateHeaders is not supported"),
        (defined("p", "request-validation-inbound", validateBody="maybe"), "validateBody must be one of none"),
        (defined("p", "set-headers-inbound", headers=[{"name": "A"}]), "a header must have a name and a value"),
        (defined("p", "set-headers-inbound", headers=[{"name": "A", "value": 1, "overwrite": False}]), "overwrite"),
        (defined("p", "remove-headers-inbound", headers="A"), "headers must be a list"),
        (defined("p", "open-id-jwt-auth-inbound", issuer="https://i"), "needs the option jwkUrl"),
    ],
)
def test_an_unsupported_policy_or_option_of_a_project_is_refused_by_name(policy, fault):
    paths = zuplo_of({"handler": handler(), "policies": {"inbound": ["p"]}})
    refusal = refusal_of({"openapi": "3.1.0", "paths": paths, "policies": [policy]})
    assert fault in refusal
    assert "x.json:" in refusal
