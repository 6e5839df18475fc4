"""The handler table: the name of each handler, as routes and endpoints use it, and the function that serves it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.handlers import (
    channel,
    contracts,
    job,
    me,
    placeholder,
    pull,
    registry,
    subscription,
    ticket,
)
from gateway.handlers.mqtt import connection as mqtt
from gateway.handlers.proxy import http as upstream
from gateway.handlers.proxy import websocket
from gateway.plane import Handler

HANDLERS: Mapping[str, Handler] = {
    "upstream": upstream.forward,
    "websocket": websocket.proxy,
    "placeholder": placeholder.refuse,
    "stream": channel.stream,
    "events": channel.events,
    "publish": channel.publish_events,
    "history": channel.history,
    "job.submit": job.submit,
    "job.status": job.status,
    "job.cancel": job.cancel,
    "job.result": job.result,
    "job.events": job.events,
    "subscription.list": subscription.list_own,
    "subscription.create": subscription.create,
    "subscription.show": subscription.show,
    "subscription.change": subscription.change,
    "subscription.delete": subscription.delete,
    "subscription.rotate": subscription.rotate,
    "subscription.attempts": subscription.attempts,
    "subscription.pull": pull.pull,
    "subscription.ack": pull.ack,
    "subscription.nack": pull.nack,
    "subscription.extend": pull.extend,
    "registry": registry.serve,
    "ticket": ticket.issue,
    "me": me.show,
    "asyncapi": contracts.asyncapi,
    "openapi": contracts.openapi,
    "mqtt": mqtt.handle_mqtt,
}
