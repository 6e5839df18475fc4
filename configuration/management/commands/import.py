"""`manage.py import FILE`: import an OpenAPI or AsyncAPI document."""  # noqa: N999

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from configuration.authors import add_author_option, author_of
from configuration.importers.options import Options, read_variables
from configuration.importers.report import Report
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
        parser.add_argument("file", help="the document, or - for standard input")
        parser.add_argument(
            "--key",
            default="",
            metavar="ID",
            help="also add the scopes to this key that the document's operations need",
        )
        parser.add_argument(
            "--policies", default="", metavar="FILE", help="the policies.json of a Zuplo project, with their options"
        )
        parser.add_argument(
            "--folder",
            default="",
            metavar="FOLDER",
            help="read the files that the document refers to in this folder or below; by default in its own",
        )
        parser.add_argument("--prefix", default="", metavar="PATH", help="put every path, address and name under this")
        parser.add_argument(
            "--server", default="", metavar="URL", help="the upstream, in place of the document's own servers"
        )
        parser.add_argument(
            "--env", default="", metavar="FILE", help="NAME=value lines: the values of Zuplo's ${env.NAME}"
        )
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="PATTERN",
            help="import only paths, names and addresses that match, such as '/v1/charges*'; may be repeated",
        )
        parser.add_argument(
            "--document",
            default="",
            metavar="NAME",
            help="the name by which its routes and channels know the document; by default its title and file",
        )
        parser.add_argument(
            "--strict", action="store_true", help="refuse the document if a part of it would be skipped"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        dry_run, report = options["dry_run"], Report()
        try:
            diff = import_file(
                options["file"],
                policies=options["policies"],
                folder=options["folder"],
                options=Options(
                    prefix=options["prefix"],
                    server=options["server"],
                    variables=read_variables(options["env"]) if options["env"] else {},
                    only=tuple(options["only"]),
                    document=options["document"],
                    is_strict=options["strict"],
                ),
                report=report,
                key_id=options["key"],
                by=author_of(options, "import"),
                dry_run=dry_run,
            )
        except DocumentError as error:
            raise CommandError(str(error)) from None
        diff.show(self.stdout, is_dry_run=dry_run, no_color=options["no_color"])
        self._list("Skipped", report.skipped)
        self._list("Placeholders, which refuse calls until they are replaced", report.placeholders)

    def _list(self, title: str, lines: list[str]) -> None:
        if lines:
            self.stdout.write(f"{title} ({len(lines)}):")
        for line in lines:
            self.stdout.write(f"  {line}")
