"""Configuration of the analytics app."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    """Usage roll-ups, the connection ledger and dashboards."""

    name = "analytics"

    def rebuild(self) -> int:
        """Replay the usage stream into empty tables and return the number of batches."""
        from analytics.rebuild import rebuild

        return rebuild()
