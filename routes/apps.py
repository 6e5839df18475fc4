"""The app's configuration."""

from django.apps import AppConfig


class RoutesConfig(AppConfig):
    """Routes and policies."""

    name = "routes"
