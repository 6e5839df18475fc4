"""`manage.py changes`: who changed what, and the configuration as of an instant."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit.models import Change
from audit.services import configuration_as_of


class Command(BaseCommand):
    """Shows the audit log."""

    help = "List the latest changes, or with --as-of print the configuration as it stood at an instant."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--as-of", metavar="INSTANT", help="RFC 3339, such as 2026-01-31T12:00:00Z")
        parser.add_argument("--limit", type=int, default=50, help="how many changes to list (default 50)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        if options["as_of"] is None:
            for change in Change.objects.all()[: options["limit"]]:
                self.stdout.write(f"{change.at:%Y-%m-%dT%H:%M:%SZ}  {change.actor:20}  {change}")
            return
        for (kind, _), document in sorted(configuration_as_of(_instant(options["as_of"])).items()):
            shown = {name: value for name, value in document.items() if name != "digest"}
            self.stdout.write(json.dumps({"kind": kind} | shown, ensure_ascii=False))


def _instant(text: str) -> datetime:
    try:
        instant = parse_datetime(text)
    except ValueError:
        instant = None
    if instant is None:
        raise CommandError("--as-of takes an RFC 3339 instant, such as 2026-01-31T12:00:00Z.")
    return instant if timezone.is_aware(instant) else timezone.make_aware(instant)
