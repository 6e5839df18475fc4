"""`manage.py issue_token USERNAME`: issue a token of the management API and print it once."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from operators.tokens import issue_token


class Command(BaseCommand):
    """Issues a token."""

    help = "Replace an operator's token of the management API and print the new one. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("username")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        user = User.objects.filter(username=options["username"], is_active=True).first()
        if user is None:
            raise CommandError(
                f"There is no active user {options['username']}; create one with `manage.py createsuperuser`."
            )
        if not user.is_staff:
            raise CommandError(f"{user.username} is not an operator: mark the user as staff in the admin first.")
        text = issue_token(user)
        self.stdout.write(json.dumps({"username": user.username, "token": text}) if options["json"] else text)
