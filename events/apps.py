"""Django's handle on the app."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    """Channels and dead letters."""

    name = "events"
