"""`manage.py export`: print the whole configuration as one YAML document."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from configuration.export import export_text


class Command(BaseCommand):
    """Exports the configuration."""

    help = "Print the whole configuration as one YAML document, for `apply`. Keys are not included."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        self.stdout.write(export_text(), ending="")
