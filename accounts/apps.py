"""The app's configuration."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Operators' accounts."""

    name = "accounts"

    def ready(self) -> None:
        """Record what happens to accounts in the audit log."""
        from accounts import trail  # noqa: F401 - connects its receivers
