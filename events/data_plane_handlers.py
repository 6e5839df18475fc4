"""Handlers of the data plane's requests to this app, by verb. The data plane has authenticated the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from audit.data_plane_requests import Handler
from consumers.models import Consumer
from events import registry_rest, subscriptions
from events.models import Subscription
from gateway.refusals import Reason, Refused

DELIVERY = "delivery"
"""The actor in the audit log of changes that the delivery process reports."""


def _create(request: dict[str, Any]) -> dict[str, Any]:
    consumer = Consumer.objects.filter(name=request["consumer"]).first()
    if consumer is None:
        raise ValidationError("The consumer no longer exists.")
    row, secret = subscriptions.create_subscription(
        consumer=consumer,
        key=request["key"],
        id=request["id"],
        position=request["position"],
        by=_actor(request),
        **request["fields"],
    )
    return _response(row, secret)


def _change(request: dict[str, Any]) -> dict[str, Any]:
    row = _own(request)
    return _response(
        subscriptions.update_subscription(row, key=request["key"], by=_actor(request), **request["changes"])
    )


def _rotate(request: dict[str, Any]) -> dict[str, Any]:
    return _response(*subscriptions.rotate_secret(_own(request), by=_actor(request), **request["options"]))


def _delete(request: dict[str, Any]) -> None:
    subscriptions.delete_subscription(_own(request), by=_actor(request))


def _report_state(request: dict[str, Any]) -> None:
    row = Subscription.objects.documented().filter(id=request["id"]).first()
    if row is not None:
        subscriptions.report_state(
            row, state=request["state"], reason=request["reason"], note=request["note"], by=DELIVERY
        )


def _own(request: dict[str, Any]) -> Subscription:
    row = Subscription.objects.of(request["consumer"]).filter(id=request["id"]).first()
    if row is None:
        raise Refused(Reason.NOT_FOUND, "There is no such subscription.")
    return row


def _actor(request: dict[str, Any]) -> str:
    return f"{request['consumer']} ({request['key']})"


def _response(row: Subscription, secret: str | None = None) -> dict[str, Any]:
    return {"document": row.document(), **({} if secret is None else {"secret": secret})}


HANDLERS: Mapping[str, Handler] = {
    "subscriptions.create": _create,
    "subscriptions.change": _change,
    "subscriptions.rotate": _rotate,
    "subscriptions.delete": _delete,
    "subscriptions.report_state": _report_state,
    "registry": registry_rest.handle,
}
