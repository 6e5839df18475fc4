"""The app's configuration. The app has templates and static files, and no tables."""

from django.apps import AppConfig


class OperatorsConfig(AppConfig):
    """What the management API and the admin share."""

    name = "operators"
