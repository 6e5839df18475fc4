"""Django's handle on the app."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    """Roll-ups, ledger and dashboards."""

    name = "analytics"

    def rebuild(self) -> int:
        """Replay the usage stream into empty tables; says how many batches."""
        from analytics.services import rebuild

        return rebuild()
