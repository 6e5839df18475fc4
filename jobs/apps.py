"""Django's handle on the app."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    """Jobs; their types are registered when Django starts."""

    name = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the types of job that come with the product."""
        from jobs.types import reports  # noqa: F401
