"""Random histories of the configuration: changes that operators might have made, minute by minute."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest import mock

from django.db import transaction
from django.utils import timezone
from hypothesis import strategies as st

from consumers.models import Consumer, Tier
from consumers.services import (
    create_consumer,
    create_tier,
    delete_consumer,
    delete_tier,
    update_consumer,
    update_tier,
)
from events import registry
from events.models import Channel, Subject
from events.registry_schemas import SubmittedSchema, parse_submitted
from events.services import create_channel, delete_channel, update_channel
from keys.issuers import create_issuer, delete_issuer, update_issuer
from keys.models import JwtIssuer, Key
from keys.services import issue_key, revoke_key, rotate_key, update_key
from routes.models import Route
from routes.services import create_route, delete_route, update_route

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
UPSTREAM = {"type": "upstream", "url": "http://up.example/"}


@dataclass(frozen=True)
class History:
    """A number of random changes."""

    dice: random.Random
    length: int

    @contextmanager
    def lived(self) -> Iterator[Iterator[datetime]]:
        """Return an iterator that makes the next change and yields its instant; all is rolled back in the end."""
        with transaction.atomic(), mock.patch("django.utils.timezone.now") as now:
            now.return_value = BEGAN_AT
            yield self._steps(now)
            transaction.set_rollback(True)

    def _steps(self, now: mock.Mock) -> Iterator[datetime]:
        for number in range(self.length):
            now.return_value = BEGAN_AT + timedelta(minutes=number)
            step(self.dice, number)
            yield now.return_value


HISTORIES = st.builds(History, st.randoms(use_true_random=False), st.integers(1, 40))


def step(dice: random.Random, number: int) -> None:
    """Make one random change, as an operator might."""
    things: list[Callable[[], object]] = [
        lambda: create_tier(name=f"tier-{number}", by="ann"),
        lambda: create_channel(address=f"c/{number}", by="ann"),
        lambda: create_route(name=f"r{number}", path=f"/{number}", handler=UPSTREAM, by="ann"),
        lambda: create_issuer(**_issuer(number), by="ann"),
        lambda: registry.register(f"s-{number}", _schema(number), by="ann"),
    ]
    for model, things_with in THINGS.items():
        if rows := [*model.objects.order_by("created_at" if model is Key else "pk")]:
            things += things_with(dice.choice(rows), number, dice)
    dice.choice(things)()


def _with_tier(tier: Tier, number: int, dice: random.Random) -> list[Callable[[], object]]:
    return [
        lambda: create_consumer(name=f"consumer-{number}", tier=tier, by="ann"),
        lambda: update_tier(tier, description=str(number), by="ann"),
        *([] if tier.consumers.exists() else [lambda: delete_tier(tier, by="ann")]),
    ]


def _with_consumer(consumer: Consumer, number: int, dice: random.Random) -> list[Callable[[], object]]:
    tier = dice.choice([*Tier.objects.order_by("pk")])
    return [
        lambda: issue_key(consumer=consumer, by="ann"),
        lambda: issue_key(consumer=consumer, name=str(number), by="ann"),
        lambda: update_consumer(consumer, metadata={"n": number}, tier=tier, by="ann"),
        lambda: update_consumer(consumer, is_active=not consumer.is_active, by="ann"),
        *([lambda: delete_consumer(consumer, by="ann")] if dice.random() < 0.3 else []),
    ]


def _with_key(key: Key, number: int, dice: random.Random) -> list[Callable[[], object]]:
    is_usable = Key.objects.usable(timezone.now()).filter(id=key.id).exists()
    return [
        lambda: revoke_key(key, by="ann"),
        lambda: update_key(key, scopes=[f"publish:c/{number}"], name=str(number), by="ann"),
        *([lambda: rotate_key(key, by="ann")] if is_usable else []),
    ]


def _with_route(route: Route, number: int, dice: random.Random) -> list[Callable[[], object]]:
    path = f"/{dice.randrange(3)}/{route.name}"
    return [lambda: update_route(route, path=path, by="ann"), lambda: delete_route(route, by="ann")]


def _with_channel(channel: Channel, number: int, dice: random.Random) -> list[Callable[[], object]]:
    return [lambda: update_channel(channel, title=str(number), by="ann"), lambda: delete_channel(channel, by="ann")]


def _with_issuer(issuer: JwtIssuer, number: int, dice: random.Random) -> list[Callable[[], object]]:
    return [lambda: update_issuer(issuer, audience=str(number), by="ann"), lambda: delete_issuer(issuer, by="ann")]


def _with_subject(subject: Subject, number: int, dice: random.Random) -> list[Callable[[], object]]:
    level = dice.choice(["", "NONE", "FULL_TRANSITIVE"])
    shown = [*registry.live(subject)]
    gone = [*subject.versions.filter(is_deleted=True)]
    return [
        lambda: registry.register(subject.name, _schema(number), by="ann"),
        lambda: registry.configure(subject.name, compatibility=level, by="ann"),
        *([lambda: registry.hide([dice.choice(shown)], subject, by="ann")] if shown else []),
        *([lambda: registry.erase([dice.choice(gone)], subject, by="ann")] if gone else []),
    ]


THINGS = {
    Tier: _with_tier,
    Consumer: _with_consumer,
    Key: _with_key,
    Route: _with_route,
    Channel: _with_channel,
    JwtIssuer: _with_issuer,
    Subject: _with_subject,
}
"""The changes that can be made to one row of each kind."""


def _schema(number: int) -> SubmittedSchema:
    return parse_submitted({"schema": f'{{"type": "object", "title": "{number}"}}', "schemaType": "JSON"})


def _issuer(number: int) -> dict[str, str]:
    url = f"https://idp-{number}.example"
    return {"name": f"issuer-{number}", "issuer": url, "jwks_url": f"{url}/jwks.json", "audience": "api"}
