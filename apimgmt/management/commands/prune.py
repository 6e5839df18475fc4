"""`manage.py prune`: keep to the bounds of everything that is kept, now and to the end."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from apimgmt.retention import keep_bounds


class Command(BaseCommand):
    """Removes what is beyond the bounds."""

    help = "Remove what is beyond the bounds of RETENTION_* settings, as the periodic task does, and wait for the end."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        removed = keep_bounds(timezone.now())
        for what, count in removed.items():
            self.stdout.write(f"{what}: {count:,} removed")
        if not removed:
            self.stdout.write("Everything is within its bounds.")
