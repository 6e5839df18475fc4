"""`manage.py rebuild snapshot|analytics`: recreate a read model from its source."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit.relay import reconcile
from gateway.link.nats import connect


class Command(BaseCommand):
    """Rebuilds a read model."""

    help = "Rebuild the snapshot in NATS from the rows, or the analytics tables from the usage stream."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("what", choices=("snapshot", "analytics"))

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        if not settings.NATS_URL:
            raise CommandError(
                "The URL of NATS is unknown: set NATS_URL, or DATA_DIR to that of a running `manage.py up`."
            )
        if options["what"] == "snapshot":
            self.stdout.write(f"{async_to_sync(_rebuild_snapshot)()} documents corrected.")
        else:
            rebuild: Any = apps.get_app_config("analytics").rebuild  # type: ignore[attr-defined]
            self.stdout.write(f"{rebuild()} batches of usage replayed.")


async def _rebuild_snapshot() -> int:
    client, js = await connect(settings.NATS_URL, "rebuild")
    try:
        return await reconcile(client, js)
    finally:
        await client.close()
