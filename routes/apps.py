"""Django's handle on the app."""

from django.apps import AppConfig


class RoutesConfig(AppConfig):
    """Routes and policies."""

    name = "routes"
