"""Celery, as the jobs use it."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection

RECONNECT_S = 1


class PromptConnection(Connection):
    """Asks for a broker that is away every second; kombu's own pauses grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Give this connection, as soon as it is one."""
        pauses = {"interval_start": RECONNECT_S, "interval_step": 0, "interval_max": RECONNECT_S}
        return super().ensure_connection(*args, **(pauses | options))


class PromptAMQP(AMQP):
    """Celery's way to the broker, by prompt connections."""

    Connection = PromptConnection


application = Celery("apimgmt", amqp=PromptAMQP)
application.config_from_object("django.conf:settings", namespace="CELERY")
application.autodiscover_tasks(["jobs"])
