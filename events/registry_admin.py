"""The schema registry in the admin: subjects, their levels and their versions."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join

from events import registry
from events.models import Subject
from operators.admin import ReadOnlyAdmin, chips, display


@admin.register(Subject)
class Subjects(ReadOnlyAdmin):
    """Subjects of the schema registry; programs register their versions at /registry."""

    list_display = ("name", "shown_type", "shown_versions", "shown_level")
    search_fields = ("name",)
    ordering = ("name",)
    readonly_fields = ("shown_type", "shown_versions", "shown_level", "shown_schemas")
    fieldsets = (
        (None, {"fields": ("name", "shown_type", "shown_level")}),
        ("Versions", {"fields": ("shown_schemas",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subject]:
        """Exclude the row of the global defaults."""
        subjects: QuerySet[Subject] = super().get_queryset(request)
        return subjects.exclude(name=registry.GLOBAL).prefetch_related("versions__schema")

    @display(description="Type")
    def shown_type(self, row: Subject) -> str:
        """Return the type of its latest version."""
        return str(row.latest["type"]) if row.latest else "deleted"

    @display(description="Versions")
    def shown_versions(self, row: Subject) -> Any:
        """Return the versions that are not deleted."""
        return chips([version.version for version in row.versions.all() if not version.is_deleted])

    @display(description="Compatibility")
    def shown_level(self, row: Subject) -> str:
        """Return its effective compatibility level."""
        return registry.compatibility_of(row.name).value

    @display(description="Schemas")
    def shown_schemas(self, row: Subject) -> Any:
        """Return each version as HTML, newest first."""
        versions = sorted(row.versions.all(), key=lambda version: -version.version)
        return format_html_join(
            "",
            "<details><summary>version {}, id {}{}</summary><pre>{}</pre></details>",
            (
                (
                    version.version,
                    version.schema_id,
                    ", deleted" if version.is_deleted else "",
                    json.dumps(json.loads(version.schema.text), indent=2, ensure_ascii=False),
                )
                for version in versions
            ),
        )
