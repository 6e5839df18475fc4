"""`manage.py import FILE`: import an OpenAPI or AsyncAPI document."""  # noqa: N999

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from configuration.authors import add_author_option, author_of
from configuration.importing import import_file
from configuration.yaml_documents import DocumentError


class Command(BaseCommand):
    """Imports a document."""

    help = (
        "Import the routes of an OpenAPI 3 document (also with x-zuplo-route), or the channels of an AsyncAPI document."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add_author_option(parser)
        parser.add_argument("file")
        parser.add_argument(
            "--key",
            default="",
            metavar="ID",
            help="also add the scopes to this key that the document's operations need",
        )
        parser.add_argument(
            "--policies", default="", metavar="FILE", help="the policies.json of a Zuplo project, with their options"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        dry_run = options["dry_run"]
        try:
            diff = import_file(
                options["file"],
                policies=options["policies"],
                key_id=options["key"],
                by=author_of(options, "import"),
                dry_run=dry_run,
            )
        except DocumentError as error:
            raise CommandError(str(error)) from None
        diff.show(self.stdout, is_dry_run=dry_run, no_color=options["no_color"])
