"""`manage.py rollback INSTANT`: restore the configuration of an instant, as new changes."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit.services import instant_of
from configuration.authors import add_author_option, author_of
from configuration.rollback import roll_back


class Command(BaseCommand):
    """Rolls the configuration back."""

    help = "Restore the configuration of an instant, as new changes. Revoked keys stay revoked."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add_author_option(parser)
        parser.add_argument("instant", help="RFC 3339, such as 2026-01-31T12:00:00Z")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        try:
            diff = roll_back(
                instant_of(options["instant"]), by=author_of(options, "rollback"), dry_run=options["dry_run"]
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        diff.show(self.stdout, is_dry_run=options["dry_run"], no_color=options["no_color"])
