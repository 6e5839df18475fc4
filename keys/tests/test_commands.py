import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from consumers.services import create_consumer, create_tier
from keys.models import Key

pytestmark = pytest.mark.django_db


@pytest.fixture
def consumer():
    return create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")


def output(*arguments):
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_a_key_is_issued_and_revoked_by_its_text_or_id(consumer):
    text = output("issue_key", "acme", "--name", "ci", "--scope", "call:a", "--scope", "jobs:*").strip()
    key = Key.objects.get()
    assert (key.name, key.scopes) == ("ci", ["call:a", "jobs:*"])
    assert "is revoked" in output("revoke_key", text, "--reason", "lost")
    assert Key.objects.get().revoked_reason == "lost"
    made = json.loads(output("issue_key", "acme", "--json"))
    output("revoke_key", made["id"])
    assert not Key.objects.filter(revoked_at=None).exists()


@pytest.mark.parametrize(
    "arguments", [("issue_key", "nobody"), ("issue_key", "acme", "--scope", "nonsense"), ("revoke_key", "nothing")]
)
def test_an_unknown_consumer_or_key_and_an_invalid_scope_are_reported(consumer, arguments):
    with pytest.raises(CommandError):
        output(*arguments)
    assert not Key.objects.exists()
