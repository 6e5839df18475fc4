"""Configuration of the events app."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    """Channels, subscriptions, dead letters, the schema registry and connectors."""

    name = "events"
