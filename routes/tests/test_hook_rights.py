"""The right to name a hook is a permission of its own, whichever way a route is written."""

import sys

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.urls import reverse
from rest_framework.test import APIClient

from routes.services import create_route, update_route

pytestmark = pytest.mark.django_db

HANDLER = {"type": "upstream", "url": "http://127.0.0.1:9/x"}
HOOK = {"type": "custom", "options": {"function": "demo.hooks:stamp", "on": "outbound"}, "mode": "enforce"}
LIMIT_HOOK = {"type": "rate-limit", "options": {"rateLimitBy": "function", "function": "demo.hooks:limit_of"}}
KEY = {"type": "api-key", "options": {}, "mode": "enforce"}
OTHER_HOOKS = [
    [],
    [HOOK, HOOK],
    [HOOK | {"mode": "shadow"}],
    [HOOK | {"options": {"function": "demo.hooks:add_region", "on": "outbound"}}],
    [HOOK | {"options": HOOK["options"] | {"options": {"a": 1}}}],
    [KEY, HOOK, LIMIT_HOOK],
]


@pytest.fixture
def rita():
    """Return an operator who may do everything with routes but name hooks."""
    user = User.objects.create_user("rita", is_staff=True)
    rights = ("add_route", "change_route", "delete_route", "view_route")
    user.user_permissions.add(*Permission.objects.filter(codename__in=rights))
    return user


@pytest.fixture
def hook_right():
    return Permission.objects.get(codename="name_hook", content_type__app_label="routes")


@pytest.fixture
def hooked():
    return create_route(name="hooked", path="/hooked", handler=HANDLER, policies=[KEY, HOOK], by="up")


@pytest.mark.parametrize("policy", [HOOK, LIMIT_HOOK])
def test_naming_a_hook_needs_the_right(rita, hook_right, policy):
    with pytest.raises(ValidationError, match="name_hook"):
        create_route(name="a", path="/a", handler=HANDLER, policies=[policy], by="rita")
    rita.user_permissions.add(hook_right)
    assert create_route(name="a", path="/a", handler=HANDLER, policies=[policy], by="rita")


@pytest.mark.parametrize("policies", OTHER_HOOKS)
def test_a_hook_is_not_changed_moved_copied_or_removed_without_the_right(rita, hooked, policies):
    with pytest.raises(ValidationError, match="name_hook"):
        update_route(hooked, policies=policies, by="rita")
    hooked.refresh_from_db()
    assert hooked.policies == [KEY, HOOK]


def test_the_rest_of_a_route_with_a_hook_is_edited_without_the_right(rita, hooked):
    update_route(hooked, path="/moved", by="rita")
    update_route(hooked, policies=[HOOK, {"type": "request-size-limit", "options": {"max_bytes": 1}}], by="rita")
    assert [policy["type"] for policy in hooked.policies] == ["custom", "request-size-limit"]


@pytest.mark.parametrize("by", ["nobody", "", "manage.py", "Up"])
def test_an_author_who_is_neither_operator_nor_command_may_not_name_hooks(by):
    with pytest.raises(ValidationError, match="name_hook"):
        create_route(name="a", path="/a", handler=HANDLER, policies=[HOOK], by=by)


def test_an_operator_with_the_name_of_a_command_has_only_its_own_rights():
    User.objects.create_user("up", is_staff=True)
    with pytest.raises(ValidationError, match="name_hook"):
        create_route(name="a", path="/a", handler=HANDLER, policies=[HOOK], by="up")


def test_a_disabled_superuser_may_not_name_hooks():
    User.objects.create_superuser("olga", is_active=False)
    with pytest.raises(ValidationError, match="name_hook"):
        create_route(name="a", path="/a", handler=HANDLER, policies=[HOOK], by="olga")


def test_the_module_of_a_refused_hook_is_not_imported(rita, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_MODULES", "unseen_module_of_an_operator")
    (tmp_path / "unseen_module_of_an_operator.py").write_text("def f(*arguments): ...")
    monkeypatch.syspath_prepend(tmp_path)
    policy = {"type": "custom", "options": {"function": "unseen_module_of_an_operator:f"}}
    with pytest.raises(ValidationError, match="name_hook"):
        create_route(name="a", path="/a", handler=HANDLER, policies=[policy], by="rita")
    assert "unseen_module_of_an_operator" not in sys.modules


def test_the_management_api_checks_the_right(rita, hooked, hook_right):
    api = APIClient()
    api.force_authenticate(rita)
    body = {"name": "a", "path": "/a", "handler": HANDLER, "policies": [HOOK]}
    answer = api.post("/api/v1/routes/", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["policies"])
    assert api.patch("/api/v1/routes/hooked", {"policies": []}).status_code == 400
    assert api.patch("/api/v1/routes/hooked", {"path": "/moved"}).status_code == 200
    rita.user_permissions.add(hook_right)
    api.force_authenticate(User.objects.get(pk=rita.pk))
    assert api.post("/api/v1/routes/", body).status_code == 201


def test_the_admin_checks_the_right(client, rita, hooked):
    client.force_login(rita)
    form = {"path": "/moved", "protocol": "http", "handler_type": "upstream", "handler_url": HANDLER["url"]}
    form |= {"rewrite_location": "on", "upstream_authorization": "drop"}
    rows = {"policies-0-type": "api-key", "policies-1-type": "custom", "policies-1-mode": "enforce"}
    rows["policies-1-options"] = '{"function": "demo.hooks:add_region"}'
    page = reverse("admin:routes_route_change", args=[hooked.pk])
    answer = client.post(page, form | rows | {"policies-total": "2"})
    assert (answer.status_code, b"routes.name_hook" in answer.content) == (200, True)
    rows["policies-1-options"] = '{"function": "demo.hooks:stamp", "on": "outbound"}'
    assert client.post(page, form | rows | {"policies-total": "2"}).status_code == 302
    hooked.refresh_from_db()
    assert (hooked.path, hooked.policies) == ("/moved", [KEY, HOOK])
