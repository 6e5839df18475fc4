"""`manage.py apply FILE`: apply a document to the configuration."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from configuration.apply import apply_document
from configuration.authors import add_author_option, author_of
from configuration.yaml_documents import DocumentError, read

DRIFT = 2


class Command(BaseCommand):
    """Applies a document."""

    help = "Apply a YAML document to the configuration, and show what changes."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add_author_option(parser)
        parser.add_argument("file", help="the document; - for standard input")
        parser.add_argument(
            "--dry-run", action="store_true", help="change nothing; exit with 2 if there are differences"
        )
        parser.add_argument(
            "--prune", action="store_true", help="delete objects that the sections of the document do not name"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        dry_run = options["dry_run"]
        try:
            document = read(options["file"])
            diff = apply_document(document, by=author_of(options, "apply"), prune=options["prune"], dry_run=dry_run)
        except DocumentError as error:
            raise CommandError(str(error)) from None
        diff.show(self.stdout, is_dry_run=dry_run, no_color=options["no_color"])
        if dry_run and diff:
            sys.exit(DRIFT)
