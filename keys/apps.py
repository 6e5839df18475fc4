"""Django's handle on the app."""

from django.apps import AppConfig


class KeysConfig(AppConfig):
    """API keys."""

    name = "keys"
