"""The index page of the admin: counts of objects, and the latest changes."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from audit.models import Change
from keys.models import Key

SHOWN = 12
CARDS = (
    ("Consumers", "consumers", "Consumer"),
    ("Valid keys", "keys", "Key"),
    ("Tiers", "consumers", "Tier"),
    ("Routes", "routes", "Route"),
    ("Channels", "events", "Channel"),
    ("Dead letters", "events", "DeadLetter"),
)


def callback(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the context of the page, with what this operator may see."""
    cards = []
    for title, app, model in CARDS:
        if request.user.has_perm(f"{app}.view_{model.lower()}"):
            rows = Key.objects.usable(timezone.now()) if model == "Key" else apps.get_model(app, model)._default_manager
            count = rows.count()
            url = reverse(f"admin:{app}_{model.lower()}_changelist")
            is_alert = model == "DeadLetter" and count > 0
            cards.append({"title": title, "count": f"{count:,}", "url": url, "is_alert": is_alert})
    may_read = request.user.has_perm("audit.view_change")
    changes = Change.objects.defer("before", "after")[:SHOWN] if may_read else ()
    return {**context, "title": "Overview", "cards": cards, "changes": changes}
