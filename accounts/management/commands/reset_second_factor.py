"""`manage.py reset_second_factor USERNAME`: remove the second factor of somebody who has lost it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.second_factor import authenticator_of, remove
from accounts.sessions import end_sessions


class Command(BaseCommand):
    """Resets a second factor."""

    help = "Remove the second factor of an operator who has lost it, and end the operator's sessions."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        user = User.objects.filter(username=options["username"]).first()
        authenticator = None if user is None else authenticator_of(user)
        if user is None or authenticator is None:
            raise CommandError(f"There is no user {options['username']} with a second factor.")
        remove(authenticator, by="manage.py reset_second_factor")
        end_sessions(user)
        self.stdout.write(f"The second factor of {user} is reset, and its sessions have ended.")
