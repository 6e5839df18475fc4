"""Django's handle on the app."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    """Consumers and tiers."""

    name = "consumers"
