"""The Celery application of jobs."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection

RECONNECT_S = 1


class PromptConnection(Connection):
    """Reconnects to an unavailable broker every second; kombu's own delays grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Return this connection once it is established."""
        delays = {"interval_start": RECONNECT_S, "interval_step": 0, "interval_max": RECONNECT_S}
        return super().ensure_connection(*args, **(delays | options))


class PromptAMQP(AMQP):
    """Celery's AMQP interface, with prompt reconnects."""

    Connection = PromptConnection


application = Celery("apimgmt", amqp=PromptAMQP)
application.config_from_object("django.conf:settings", namespace="CELERY")
application.autodiscover_tasks(["apimgmt", "events", "jobs"])
