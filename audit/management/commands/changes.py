"""`manage.py changes`: the latest changes, the configuration as of an instant, or the differences between two."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from audit.models import Change, Checkpoint
from audit.services import NotAvailable, configuration_as_of, diff_between, instant_of, without_hidden


class Command(BaseCommand):
    """Prints the audit log."""

    help = "List the latest changes, or print the configuration as of an instant, or the changes between two."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--as-of", metavar="INSTANT", help="RFC 3339, such as 2026-01-31T12:00:00Z")
        parser.add_argument("--since", metavar="INSTANT", help="show how each object has changed since then")
        parser.add_argument("--until", metavar="INSTANT", help="the end of --since (default: now)")
        parser.add_argument("--limit", type=int, default=50, help="how many changes to list (default 50)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        as_of, since, until = (_instant(name, options[name]) for name in ("as_of", "since", "until"))
        if (until and not since) or (as_of and since):
            raise CommandError("Use --as-of, or --since with an optional --until.")
        try:
            self._show(since, until, as_of, options)
        except NotAvailable as error:
            raise CommandError(str(error)) from None

    def _show(
        self, since: datetime | None, until: datetime | None, as_of: datetime | None, options: dict[str, Any]
    ) -> None:
        if since:
            diff = diff_between(since, until or timezone.now())
            diff.show(self.stdout, no_color=options["no_color"])
        elif as_of:
            for (kind, _), document in sorted(configuration_as_of(as_of).items()):
                self.stdout.write(json.dumps({"kind": kind} | (without_hidden(document) or {}), ensure_ascii=False))
        else:
            for change in Change.objects.all()[: options["limit"]]:
                self.stdout.write(f"{change.at:%Y-%m-%dT%H:%M:%SZ}  {change.actor:20}  {change}")
            if (checkpoint := Checkpoint.objects.first()) is not None:
                self.stdout.write(f"The log is {checkpoint}; {checkpoint.exported:,} earlier changes were exported.")


def _instant(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else instant_of(text)
    except ValueError as error:
        raise CommandError(f"--{option.replace('_', '-')}: {error}") from None
