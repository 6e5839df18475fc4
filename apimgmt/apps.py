"""Configuration of the project's own app: its commands and checks."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """The project as an app, so that Django finds `manage.py up`."""

    name = "apimgmt"

    def ready(self) -> None:
        """Register the system checks."""
        from apimgmt import checks

        checks.register_all()
