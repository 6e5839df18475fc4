"""The author of what a command changes: the command itself, or the operator that `--by` names."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser


def add_author_option(parser: CommandParser) -> None:
    """Declare the option `--by`."""
    parser.add_argument(
        "--by",
        default="",
        metavar="USERNAME",
        help="act for this operator: the author in the audit log, whose right to name functions counts",
    )


def author_of(options: dict[str, Any], command: str) -> str:
    """Return the name for the audit log. Raises CommandError if there is no such operator."""
    name = str(options["by"])
    if name and not User.objects.filter(username=name, is_active=True, is_staff=True).exists():
        raise CommandError(f"There is no active operator {name}.")
    return name or f"manage.py {command}"
