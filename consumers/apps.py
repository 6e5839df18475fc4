"""The app's configuration."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    """Consumers and tiers."""

    name = "consumers"
