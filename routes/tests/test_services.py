import sys

import pytest
from django.core.exceptions import ValidationError

from audit.models import Change
from routes.models import Route
from routes.services import create_route, delete_route, update_route

pytestmark = pytest.mark.django_db

UPSTREAM = {"type": "upstream", "url": "http://127.0.0.1:9/x"}


def make(**fields):
    return create_route(**{"name": "quotes", "path": "/quotes", "handler": UPSTREAM, "by": "ann", **fields})


def test_a_route_is_made_changed_and_deleted_each_recorded():
    route = make(methods=["get"], policies=[{"type": "api-key"}])
    assert route.document() == {
        "name": "quotes",
        "path": "/quotes",
        "methods": ["GET"],
        "protocol": "http",
        "handler": UPSTREAM,
        "policies": [{"type": "api-key", "options": {}, "mode": "enforce"}],
        "reserved_override": False,
        "timeouts": {},
        "preserve_host": False,
        "rewrite_location": True,
        "encoded_slashes": "",
        "upstream_authorization": "drop",
        "idempotency": False,
        "compression": False,
        "sealed_credential": "",
    }
    update_route(route, path="/q/{rest...}", handler=UPSTREAM | {"url": "http://127.0.0.1:9/{rest}"}, by="bob")
    delete_route(route, by="bob")
    changes = Change.objects.filter(kind="route").order_by("id")
    assert [(change.action, change.actor) for change in changes] == [
        ("created", "ann"), ("updated", "bob"), ("deleted", "bob")
    ]  # fmt: skip
    assert changes[1].before["path"] == "/quotes"
    assert changes[1].after["path"] == "/q/{rest...}"


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/", "/a/{id}", "/a/{id}/b/{rest...}", "/a.b/c-d_e~f", "/v10", "/apis", "/ä", "/mcp:x",
             "/{id}.json", "/{name}:cancel", "/Items(Id={id},No={no})", "/{base}...{head}"]
)  # fmt: skip
def test_a_path_is_literal_segments_and_parameters(path):
    assert make(path=path).path == path


@pytest.mark.parametrize(
    "path", ["", "a", "/a//b", "/a/../b", "/a/.", "/{a}{b}", "/{rest...}/a", "/{a}/{a}", "/{}", "/{a", "/a?b",
             "/a#b", "/a%2fb", "/a b", "/a\\b", "/a\n", "/" + "a" * 1000, None, 7]
)  # fmt: skip
def test_a_path_that_cannot_be_served_is_refused(path):
    with pytest.raises(ValidationError) as fault:
        make(path=path)
    assert list(fault.value.message_dict) == ["path"]


@pytest.mark.parametrize("path", ["/v1", "/v1/x", "/registry/a", "/docs", "/static/x.js", "/healthz", "/readyz"])
def test_reserved_paths_need_reserved_override_and_an_exact_path(path):
    with pytest.raises(ValidationError) as fault:
        make(path=path)
    assert list(fault.value.message_dict) == ["path"]
    assert make(path=path, reserved_override=True).path == path


@pytest.mark.parametrize("path", ["/v1/{rest...}", "/v1/{name}", "/docs/{rest...}"])
def test_a_template_never_overrides_reserved_addresses(path):
    with pytest.raises(ValidationError):
        make(path=path, reserved_override=True)


def test_a_template_under_a_reserved_prefix_may_match_no_own_address():
    assert make(path="/v1/charges/{id}", reserved_override=True).path == "/v1/charges/{id}"
    with pytest.raises(ValidationError, match="under a reserved prefix"):
        make(path="/v1/refunds/{id}")


@pytest.mark.parametrize("path", ["/", "/api/{rest...}", "/admin/{name}", "/dashboards", "/metrics", "/portal/x"])
def test_paths_of_the_operators_origin_are_free_for_routes(path):
    assert make(path=path).path == path


def test_the_headers_that_override_a_request_are_kept_in_lower_case_and_once():
    route = make(handler=UPSTREAM | {"override_headers": ["X-Original-URL", "x-original-url", "X-HTTP-Method"]})
    assert route.handler == UPSTREAM | {"override_headers": ["x-original-url", "x-http-method"]}
    update_route(route, handler=UPSTREAM | {"override_headers": []}, by="bob")
    assert Route.objects.get().handler == UPSTREAM


def test_omitted_methods_are_those_of_the_protocol():
    assert "DELETE" in make().methods
    assert make(name="s", path="/s", protocol="sse").methods == ["GET"]
    assert make(name="w", path="/w", protocol="websocket").methods == ["GET"]


def test_any_token_is_a_method_and_its_case_matters():
    route = make(methods=["get", "PROPFIND", "propfind", "!x", "GET"])
    assert route.methods == ["GET", "PROPFIND", "propfind", "!x"]


def test_any_method_overlaps_with_every_other():
    make(methods=["*"])
    with pytest.raises(ValidationError):
        make(name="again", methods=["PURR"])


def test_a_new_protocol_resets_the_methods():
    route = make(methods=["GET", "POST"])
    update_route(route, protocol="websocket", by="bob")
    assert Route.objects.get().methods == ["GET"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"methods": ["FE TCH"]}, "methods"),
        ({"methods": [""]}, "methods"),
        ({"methods": ["GET", "TRACE"]}, "methods"),
        ({"methods": ["X" * 65]}, "methods"),
        ({"methods": [f"M{number}" for number in range(51)]}, "methods"),
        ({"methods": "GET"}, "methods"),
        ({"methods": [1]}, "methods"),
        ({"methods": ["POST"], "protocol": "websocket"}, "methods"),
        ({"protocol": "ftp"}, "protocol"),
        ({"protocol": None}, "protocol"),
        ({"reserved_override": "yes"}, "reserved_override"),
        ({"handler": None}, "handler.type"),
        ({"handler": {}}, "handler.type"),
        ({"handler": {"type": []}}, "handler.type"),
        ({"handler": {"type": "magic"}}, "handler.type"),
        ({"handler": {"type": "upstream"}}, "handler.url"),
        ({"handler": {"type": "upstream", "url": 5}}, "handler.url"),
        ({"handler": UPSTREAM | {"timeout": 5}}, "handler.timeout"),
        ({"handler": UPSTREAM | {"rewrite": "x"}}, "handler.rewrite"),
        ({"handler": UPSTREAM | {"rewrite": "/a\r\nx: y"}}, "handler.rewrite"),
        ({"handler": UPSTREAM | {"rewrite": "/{other}"}}, "handler.rewrite"),
        ({"handler": UPSTREAM | {"rewrite": "/a/../b"}}, "handler.rewrite"),
        ({"path": "/{id}", "handler": UPSTREAM | {"rewrite": "/a/.{id}"}}, "handler.rewrite"),
        ({"handler": UPSTREAM | {"url": "http://127.0.0.1:9/x/%2e%2e;a/y"}}, "handler.url"),
        ({"handler": UPSTREAM | {"override_headers": "x-original-url"}}, "handler.override_headers"),
        ({"handler": UPSTREAM | {"override_headers": ["x-forwarded-for"]}}, "handler.override_headers"),
        ({"handler": UPSTREAM | {"override_headers": [1]}}, "handler.override_headers"),
        ({"handler": {"type": "channel", "channel": "a", "override_headers": []}}, "handler.override_headers"),
        ({"handler": {"type": "channel"}}, "handler.channel"),
        ({"handler": {"type": "channel", "channel": "a/#"}}, "handler.channel"),
        ({"handler": {"type": "job"}}, "handler.job_type"),
        ({"handler": {"type": "job", "job_type": "x"}, "protocol": "sse"}, "handler.job_type"),
        ({"policies": {}}, "policies"),
        ({"policies": [{"type": "magic"}]}, "policies[0].type"),
        ({"policies": [{"type": ["api-key"]}]}, "policies[0].type"),
        ({"policies": [{"type": "api-key", "when": 1}]}, "policies[0].when"),
        ({"policies": [{"type": "api-key", "mode": "off"}]}, "policies[0].mode"),
        ({"policies": [{"type": "api-key", "options": []}]}, "policies[0].options"),
        ({"policies": [{"type": "request-size-limit", "options": {"max_bytes": -1}}]}, "policies[0].options.max_bytes"),
        ({"name": "a b"}, "name"),
    ],
)
def test_an_error_names_its_field(fields, field):
    with pytest.raises(ValidationError) as fault:
        make(**fields)
    assert list(fault.value.message_dict) == [field]
    assert not Route.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1/x",
        "/x",
        "ws://127.0.0.1/x",
        "file:///etc/passwd",
        "http://",
        "http://{host}/x",
        "http://a:99999/",
        "http://[::1/",
        "http://me:secret@a.example/",
        "http://a.example/a b",
        "http://a.example/\r\nx: y",
        "http://a.example/ä",
        "http://a.example/#part",
        "http://a.example/{other}",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
    ],
)
def test_an_upstream_that_cannot_be_called_or_must_not_be_is_refused(url):
    with pytest.raises(ValidationError) as fault:
        make(handler={"type": "upstream", "url": url})
    assert list(fault.value.message_dict) == ["handler.url"]


def test_an_operator_may_allow_a_link_local_network(settings):
    from ipaddress import ip_network

    settings.OUTBOUND_ALLOWED_NETWORKS = (ip_network("169.254.0.0/16"),)
    make(handler={"type": "upstream", "url": "http://169.254.1.1/"})


def test_private_upstreams_are_allowed():
    for number, url in enumerate(("http://10.0.0.1/", "http://localhost:8090/x", "https://[::1]:8443/a")):
        make(name=f"r{number}", path=f"/r{number}", handler={"type": "upstream", "url": url})


def test_a_path_is_unique_for_each_method_and_transport():
    make(methods=["GET"], path="/a/{id}")
    make(name="post", methods=["POST"], path="/a/{id}")
    make(name="socket", protocol="websocket", path="/a/{id}")
    with pytest.raises(ValidationError) as fault:
        make(name="again", methods=["PUT", "GET"], path="/a/{name}")
    assert fault.value.message_dict == {"path": ["The route quotes already has this path and method."]}
    with pytest.raises(ValidationError):
        make(name="again", protocol="sse", path="/a/{id}")


SLOW_MODULE = """
from django.db import connection

was_locked = connection.in_atomic_block


def f(*arguments):
    return None
"""


@pytest.mark.django_db(transaction=True)
def test_a_slow_import_of_a_module_holds_no_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_MODULES", "slow_module_of_an_operator")
    (tmp_path / "slow_module_of_an_operator.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    route = make()
    update_route(route, policies=[{"type": "custom", "options": {"function": "slow_module_of_an_operator:f"}}], by="up")
    assert sys.modules.pop("slow_module_of_an_operator").was_locked is False


def test_a_change_is_validated_with_the_unchanged_fields(django_assert_num_queries):
    route = make(path="/a/{id}", handler=UPSTREAM | {"url": "http://127.0.0.1/{id}"})
    with pytest.raises(ValidationError) as fault:
        update_route(route, path="/a", by="bob")
    assert list(fault.value.message_dict) == ["handler.url"]
    for field in ("name", "color", "id"):
        with pytest.raises(ValidationError) as fault:
            update_route(route, by="bob", **{field: "x"})
        assert list(fault.value.message_dict) == [field]
    assert Route.objects.get().path == "/a/{id}"


BUILTIN = {"type": "builtin"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"protocol": "mqtt", "path": "/mqtt"}, "handler.type"),
        ({"protocol": "mqtt", "path": "/other", "handler": BUILTIN}, "path"),
        ({"protocol": "mqtt", "path": "/mqtt", "handler": BUILTIN, "methods": ["POST"]}, "methods"),
        ({"protocol": "mqtt", "path": "/mqtt", "handler": BUILTIN, "policies": [{"type": "cors"}]}, "policies[0].type"),
        ({"protocol": "websocket", "path": "/v1/events", "handler": BUILTIN, "reserved_override": True}, "path"),
        ({"protocol": "websocket", "path": "/v1/stream", "handler": BUILTIN}, "path"),
        ({"path": "/v1/me", "handler": BUILTIN, "reserved_override": True}, "path"),
        ({"protocol": "sse", "path": "/v1/events", "handler": BUILTIN | {"url": "x"}, "reserved_override": True},
         "handler.url"),
    ],
)  # fmt: skip
def test_only_builtin_paths_have_builtin_handlers_and_mqtt_has_no_other(fields, field):
    with pytest.raises(ValidationError) as refused:
        make(**fields)
    assert field in refused.value.message_dict


def test_one_mqtt_route_is_on_the_builtin_path():
    make(name="devices", protocol="mqtt", path="/mqtt", handler=BUILTIN)
    make(name="page", path="/mqtt")
    with pytest.raises(ValidationError, match="devices"):
        make(name="again", protocol="mqtt", path="/mqtt", handler=BUILTIN)
