"""Django's handle on the app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Changes and their relay."""

    name = "audit"
