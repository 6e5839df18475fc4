"""`manage.py revoke_key ID`: revoke a key."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway.credentials.api_keys import MalformedKey, parse
from keys.models import Key
from keys.services import revoke_key


class Command(BaseCommand):
    """Revokes a key."""

    help = "Revoke a key; its open connections are closed within a second."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("key", help="the key's id, or the key itself")
        parser.add_argument("--reason", default="", help="stored with the key and in the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        try:
            key_id = parse(options["key"])
        except MalformedKey:
            key_id = options["key"]
        key = Key.objects.with_consumer().filter(id=key_id).first()
        if key is None:
            raise CommandError("There is no such key.")
        revoke_key(key, reason=options["reason"], by="manage.py")
        self.stdout.write(f"Key {key.id} of {key.consumer.name} is revoked.")
