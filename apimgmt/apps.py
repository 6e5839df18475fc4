"""Django's handle on the project itself: its commands and its checks."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """The project as an app, so that `manage.py up` is found."""

    name = "apimgmt"

    def ready(self) -> None:
        """Register the checks."""
        from apimgmt import checks

        checks.register_all()
