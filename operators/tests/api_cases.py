"""Objects and checks that the tests of the management API share."""

from django.utils import timezone

from events.models import DeadLetter

UPSTREAM = {"type": "upstream", "url": "http://upstream.example/a"}
ISSUER = {"name": "idp", "issuer": "https://idp.example", "jwks_url": "https://idp.example/jwks", "audience": "api"}


def problem(answer, status, reason):
    assert answer.status_code == status, answer.content
    assert answer["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["reason"], body["type"]) == (status, reason, f"/docs/refusals#{reason}")
    return body


def dead_letter(**fields):
    row = {
        "made_at": "2026-01-01T00:00:00Z",
        "sequence": 1,
        "channel": "trades",
        "address": "trades",
        "reason": "invalid-payload",
        "detail": "not a number",
        "event": {"data": {"value": "warm"}},
        "dead_at": timezone.now(),
    }
    return DeadLetter.objects.create(**row | fields)
