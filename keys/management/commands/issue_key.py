"""`manage.py issue_key CONSUMER`: issue a key and print it once."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from consumers.models import Consumer
from consumers.scopes import every_scope
from keys.services import issue_key


class Command(BaseCommand):
    """Issues a key."""

    help = "Issue a key for a consumer and print it. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("consumer")
        parser.add_argument("--name", default="", help="what the key is for")
        parser.add_argument(
            "--scope",
            action="append",
            dest="scopes",
            metavar="SCOPE",
            help="call:ROUTE, publish:ADDRESS, …; repeatable",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        consumer = Consumer.objects.filter(name=options["consumer"]).first()
        if consumer is None:
            raise CommandError(f"There is no consumer {options['consumer']}.")
        scopes = options["scopes"] or every_scope()
        try:
            key, text = issue_key(consumer=consumer, name=options["name"], scopes=scopes, by="manage.py")
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        self.stdout.write(json.dumps({"id": key.id, "key": text}) if options["json"] else text)
