"""The app's configuration."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """The audit log and its relay."""

    name = "audit"
