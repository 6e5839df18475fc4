import pytest
from django.core.exceptions import ValidationError

from audit.models import Change
from keys.issuers import create_issuer, delete_issuer, update_issuer
from keys.models import JwtIssuer

pytestmark = pytest.mark.django_db

FIELDS = {"issuer": "https://id.example/", "jwks_url": "https://id.example/jwks", "audience": "api"}


def test_an_issuer_is_made_changed_and_deleted_each_recorded():
    issuer = create_issuer(name="idp", by="ann", **FIELDS)
    assert issuer.document() == {"name": "idp", "algorithms": ["RS256"], "consumer_claim": "sub", **FIELDS}
    update_issuer(issuer, algorithms=["ES256", "RS256", "ES256"], consumer_claim="azp", by="ann")
    assert JwtIssuer.objects.get().algorithms == ["ES256", "RS256"]
    delete_issuer(issuer, by="ann")
    actions = Change.objects.filter(kind="issuer", name="idp").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["created", "updated", "deleted"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": "RS256"}, "algorithms"),
        ({"jwks_url": "ftp://id.example/jwks"}, "jwks_url"),
        ({"jwks_url": "/jwks"}, "jwks_url"),
        ({"jwks_url": "https://me:secret@id.example/jwks"}, "jwks_url"),
        ({"jwks_url": "http://169.254.169.254/latest"}, "jwks_url"),
        ({"audience": ""}, "audience"),
        ({"issuer": ""}, "issuer"),
        ({"consumer_claim": ""}, "consumer_claim"),
        ({"jwks_url": "https://id.example/jwks\r\nhost: evil"}, "jwks_url"),
        ({"name": "a b"}, "name"),
        ({"name": "a" * 37}, "name"),
    ],
)
def test_an_issuer_that_would_not_be_safe_is_refused(fields, field):
    with pytest.raises(ValidationError) as fault:
        create_issuer(by="ann", **{"name": "idp", **FIELDS, **fields})
    assert list(fault.value.message_dict) == [field]
    assert not Change.objects.exists()
