"""The audit log in the admin, read-only."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join

from audit.models import Change
from audit.services import without_hidden
from operators.admin import ReadOnlyAdmin, display

COLOURS = {
    "created": "success",
    "updated": "info",
    "deleted": "danger",
    "signed-in": "success",
    "signed-out": "info",
    "sign-in-failed": "warning",
}


@admin.register(Change)
class Changes(ReadOnlyAdmin):
    """Every change, newest first."""

    list_display = ("at", "actor", "shown_action", "kind", "name", "note")
    list_filter = ("action", "kind", "actor")
    search_fields = ("name", "actor", "note")
    date_hierarchy = "at"
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("at", "actor", "action", "kind", "name", "note", "published_at")}),
        ("What changed", {"fields": ("difference",)}),
    )
    readonly_fields = ("difference",)

    @display(description="Action", ordering="action", label=COLOURS)
    def shown_action(self, change: Change) -> str:
        return change.action

    @display(description="Fields")
    def difference(self, change: Change) -> Any:
        """Return a table of the fields that differ, with their values before and after."""
        before, after = without_hidden(change.before) or {}, without_hidden(change.after) or {}
        names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
        rows = format_html_join(
            "",
            '<tr><th scope="row">{}</th><td><pre class="was">{}</pre></td><td><pre class="is">{}</pre></td></tr>',
            ((name, _pretty(before, name), _pretty(after, name)) for name in names),
        )
        return format_html(
            '<table class="difference"><thead><tr><th>Field</th><th>Before</th><th>After</th></tr></thead>'
            "<tbody>{}</tbody></table>",
            rows,
        )


def _pretty(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields[name], indent=2, ensure_ascii=False) if name in fields else "—"
