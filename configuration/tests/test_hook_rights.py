"""Whoever applies, imports or rolls back needs the right to name the hooks that this changes."""

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from audit.models import Change
from configuration.apply import apply_text
from configuration.importing import import_document
from configuration.rollback import roll_back
from configuration.tests.imports import document, handler, zuplo_of
from configuration.yaml_documents import DocumentError
from routes.models import Route
from routes.services import create_route, update_route

pytestmark = pytest.mark.django_db

KEY = {"type": "api-key", "options": {}, "mode": "enforce"}
HOOK = {"type": "custom", "options": {"function": "demo.hooks:stamp"}, "mode": "enforce"}
TEXT = """
routes:
- name: b
  path: /b
  handler: {type: upstream, url: 'http://127.0.0.1:9/x'}
  policies: [%s]
"""
PLAIN = TEXT % "{type: api-key}"
HOOKED = TEXT % "{type: custom, options: {function: 'demo.hooks:stamp'}}"


@pytest.fixture
def rita():
    """Return an operator without the right to name hooks."""
    return User.objects.create_user("rita", is_staff=True)


def test_apply_checks_the_right_of_its_author(rita):
    with pytest.raises(DocumentError, match="name_hook"):
        apply_text(HOOKED, "a.yaml", by="rita")
    apply_text(PLAIN, "a.yaml", by="rita")
    with pytest.raises(DocumentError, match="name_hook"):
        apply_text(HOOKED, "a.yaml", by="rita")
    apply_text(HOOKED, "a.yaml", by="manage.py apply")


def test_import_checks_the_right_of_its_author(rita):
    code = {"export": "x", "module": "y", "options": {"function": "demo.hooks:stamp"}}
    policy = {"name": "hook", "policyType": "custom-code-inbound", "handler": code}
    paths = zuplo_of({"handler": handler(), "policies": {"inbound": ["hook"]}})
    data = document({"openapi": "3.1.0", "paths": paths, "policies": [policy]})
    with pytest.raises(DocumentError, match="name_hook"):
        import_document(data, by="rita")
    assert not Route.objects.exists()
    assert import_document(data, by="manage.py import")


def test_a_rollback_brings_no_hook_back_without_the_right(rita):
    url = {"type": "upstream", "url": "http://127.0.0.1:9/x"}
    route = create_route(name="hooked", path="/hooked", handler=url, policies=[HOOK], by="up")
    before = timezone.now()
    update_route(route, policies=[KEY], by="up")
    with pytest.raises(ValidationError, match="name_hook"):
        roll_back(before, by="rita")
    roll_back(before, by="manage.py rollback")
    route.refresh_from_db()
    assert route.policies == [HOOK]


def test_the_commands_act_for_an_operator_who_is_named(rita, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(HOOKED)
    with pytest.raises(CommandError, match="name_hook"):
        call_command("apply", str(file), "--by", "rita")
    file.write_text(PLAIN)
    call_command("apply", str(file), "--by", "rita")
    assert Change.objects.get(kind="route").actor == "rita"
    for nobody in ("bob", "up"):
        with pytest.raises(CommandError, match=f"no active operator {nobody}"):
            call_command("apply", str(file), "--by", nobody)
