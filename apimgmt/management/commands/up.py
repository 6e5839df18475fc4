"""`manage.py up`: run everything."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apimgmt.launcher.console import Console
from apimgmt.launcher.launch import Launch
from apimgmt.launcher.plan import add_options, reserved


class Command(BaseCommand):
    """Runs all processes."""

    help = (
        "Start the engines that are not configured by URL, migrate, load the demo, and run every process until Ctrl-C."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own declaration

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's options."""
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        (plan,) = reserved
        sys.exit(Launch(plan, Console()).run())
