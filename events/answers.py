"""What the data plane may ask of this app, by verb. Whose call it is was proved there."""

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
"""Who changes what the deliverer has found, in the audit log."""


def _create(question: dict[str, Any]) -> dict[str, Any]:
    consumer = Consumer.objects.filter(name=question["consumer"]).first()
    if consumer is None:
        raise ValidationError("The consumer is gone.")
    row, secret = subscriptions.create_subscription(
        consumer=consumer,
        key=question["key"],
        id=question["id"],
        position=question["position"],
        by=_by(question),
        **question["fields"],
    )
    return _said(row, secret)


def _change(question: dict[str, Any]) -> dict[str, Any]:
    row = _own(question)
    return _said(subscriptions.update_subscription(row, key=question["key"], by=_by(question), **question["changes"]))


def _rotate(question: dict[str, Any]) -> dict[str, Any]:
    return _said(*subscriptions.rotate_secret(_own(question), by=_by(question), **question["options"]))


def _delete(question: dict[str, Any]) -> None:
    subscriptions.delete_subscription(_own(question), by=_by(question))


def _stand(question: dict[str, Any]) -> None:
    row = Subscription.objects.documented().filter(id=question["id"]).first()
    if row is not None:
        subscriptions.report_state(
            row, state=question["state"], reason=question["reason"], note=question["note"], by=DELIVERY
        )


def _own(question: dict[str, Any]) -> Subscription:
    row = Subscription.objects.of(question["consumer"]).filter(id=question["id"]).first()
    if row is None:
        raise Refused(Reason.NOT_FOUND, "There is no such subscription.")
    return row


def _by(question: dict[str, Any]) -> str:
    return f"{question['consumer']} ({question['key']})"


def _said(row: Subscription, secret: str | None = None) -> dict[str, Any]:
    shown = {} if secret is None else {"secret": secret}
    return {"document": row.document(), **shown}


ANSWERS: Mapping[str, Handler] = {
    "subscriptions.create": _create,
    "subscriptions.change": _change,
    "subscriptions.rotate": _rotate,
    "subscriptions.delete": _delete,
    "subscriptions.report_state": _stand,
    "registry": registry_rest.answer,
}
