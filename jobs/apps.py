"""The Django configuration of the app."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    """Jobs; the job types are registered when Django starts."""

    name = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the built-in job types."""
        from jobs.types import reports  # noqa: F401
