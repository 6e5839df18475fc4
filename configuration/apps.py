"""The app's configuration."""

from django.apps import AppConfig


class ConfigurationConfig(AppConfig):
    """Configuration as documents; it has no tables."""

    name = "configuration"
