"""`manage.py issue_token USERNAME`: issue a token of the management API and print it once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from accounts.models import Token
from accounts.tokens import issue_token, revoke_token

BY = "manage.py issue_token"


class Command(BaseCommand):
    """Issues a token."""

    help = "Issue a token of the management API and print it; it cannot be shown again, and replaces one of its name."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("username")
        parser.add_argument("--name", default="command line", help="the name in the list of tokens")
        parser.add_argument("--days", type=int, help="how long it is valid; TOKEN_DAYS by default, and at the most")
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
        days = options["days"]
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        try:
            with transaction.atomic():
                for token in Token.objects.usable(timezone.now()).filter(account=user, name=options["name"]):
                    revoke_token(token, by=BY)
                _, text = issue_token(user, name=options["name"], expires_at=expires_at, by=BY)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(json.dumps({"username": user.username, "token": text}) if options["json"] else text)
