"""Watches how far subscriptions have come: says so to both APIs, alerts who wants to know, clears away what is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import orjson

from gateway.concurrency.stopping import stop_tasks
from gateway.delivery import lag_alert
from gateway.delivery.client import SendFailed
from gateway.delivery.lag_alert import Alert
from gateway.delivery.worker import FAULTS
from gateway.durable import webhook
from gateway.durable.health import HEALTH_PREFIX, HEALTH_STREAM, UNMEASURED, instant, measure, read_healths
from gateway.durable.standing import channel_of, secrets_now, standing
from gateway.durable.webhook import Verdict
from gateway.link.nats import ATTEMPTS_STREAM, ATTEMPTS_SUBJECT, HEALTH_BUCKET
from gateway.snapshot.subscriptions import ID_PREFIX, Subscription, ack_wait_s, window

if TYPE_CHECKING:
    from gateway.delivery.process import Delivery

logger = logging.getLogger(__name__)

LOOK_S, LOOK_EACH_S = 1.0, 0.01
"""So often all are looked at; where there are many, so much later for each."""
SWEEP_S = 60.0
"""Readers that no subscription has are looked for so often, and not before this process has led for so long."""


class Watch:
    """What the process that leads knows of every subscription."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._said: dict[str, dict[str, Any]] = {}
        self._streams: dict[str, str] = {}
        self._alerts: dict[str, Alert] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again and again, while this process leads."""
        was_leading, sweep_at = False, 0.0
        while True:
            await asyncio.sleep(max(LOOK_S, LOOK_EACH_S * len(self._streams)))
            if not self._delivery.is_leading:
                was_leading = False
                continue
            try:
                if not was_leading:
                    self._said = await read_healths(self._delivery.nats)
                    was_leading, sweep_at = True, time.monotonic() + SWEEP_S
                await self._look()
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_S
                    await self._sweep()
            except FAULTS as error:
                logger.warning("watching subscriptions: %s", str(error) or type(error).__name__)
            except Exception:
                logger.exception("watching subscriptions failed; going on")

    async def stop(self) -> None:
        """Stop telling."""
        await stop_tasks(*self._telling.values())

    async def _look(self) -> None:
        snapshot = self._delivery.snapshot
        present = list(snapshot.subscriptions())
        for subscription in present:
            health = await self._health(subscription)
            if health != self._said.get(subscription.id):
                bucket = await self._delivery.js.key_value(HEALTH_BUCKET)
                await bucket.put(subscription.id, orjson.dumps(health))
                self._said[subscription.id] = health
            if subscription.alert_url:
                self._alert(subscription, health)
        for id_ in self._streams.keys() - {one.id for one in present}:
            await self.clear_away(id_, self._streams.pop(id_))

    async def _health(self, subscription: Subscription) -> dict[str, Any]:
        """Say how one stands. Raises what an engine that is away may raise."""
        delivery = self._delivery
        worker = delivery.workers.get(subscription.id)
        now = time.time()
        stands = worker.standing(now) if worker is not None else standing(delivery.snapshot, subscription, now)
        fault = worker.last_error if worker is not None else None
        last_error = self._said.get(subscription.id, {}).get("last_error")
        if fault is not None:
            last_error = {**fault, "at": instant(fault["at"])}
        said = {"state": stands.state.value, "state_reason": stands.reason or None, "last_error": last_error}
        channel = channel_of(delivery.snapshot, subscription)
        if channel is None:
            return said | UNMEASURED
        self._streams[subscription.id] = channel.stream
        try:
            return said | await measure(delivery.log, delivery.readers, subscription, channel)
        except LookupError:
            wait_s = ack_wait_s(subscription, delivery.config.webhook_timeout_s)
            await delivery.readers.ensure(subscription, channel, wait_s, window(subscription))
            return said | UNMEASURED

    def _alert(self, subscription: Subscription, health: dict[str, Any]) -> None:
        now = time.time()
        known = self._alerts.get(subscription.id, Alert())
        alert = self._alerts[subscription.id] = known.seen(lag_alert.is_above(subscription, health["lag"]), now)
        under_way = self._telling.get(subscription.id)
        if alert.is_due(now) and (under_way is None or under_way.done()):
            self._telling[subscription.id] = asyncio.create_task(self._tell(subscription, alert, health))

    async def _tell(self, subscription: Subscription, alert: Alert, health: dict[str, Any]) -> None:
        delivery, now = self._delivery, time.time()
        message_id, body = lag_alert.message(subscription, alert, health)
        headers = webhook.headers(message_id, body, secrets_now(delivery.config.secret_key, subscription, now), now)
        try:
            answer = await delivery.client.send(
                subscription.alert_url, webhook.request(subscription.alert_url, headers, body)
            )
            is_taken = webhook.verdict(answer) is Verdict.DELIVERED
        except SendFailed as failure:
            logger.warning("the alert of %s was not taken: %s", subscription.id, failure)
            is_taken = False
        if self._alerts.get(subscription.id) is alert:
            self._alerts[subscription.id] = alert.told() if is_taken else alert.failed(time.time())

    async def _sweep(self) -> None:
        """Clear away readers whose subscription is gone, as one that was deleted while nobody led."""
        delivery = self._delivery
        if not any(True for _ in delivery.snapshot.channels()):
            return  # a snapshot that is being filled says nothing about what is gone
        for channel in list(delivery.snapshot.channels()):
            names = await self._readers_of(channel.stream)
            for name in names:
                if name.startswith(ID_PREFIX) and delivery.snapshot.subscription(name) is None:
                    await self.clear_away(name, channel.stream)

    async def _readers_of(self, stream: str) -> list[str]:
        names: list[str] = []
        while True:
            page = await self._delivery.js.consumers_info(stream, offset=len(names))
            names += [info.name for info in page]
            if not page:
                return names

    async def clear_away(self, subscription_id: str, stream: str) -> None:
        """Forget all about a subscription that is gone."""
        delivery = self._delivery
        await delivery.readers.remove(stream, subscription_id)
        await delivery.attempts.settled(subscription_id)
        await delivery.js.purge_stream(ATTEMPTS_STREAM, subject=f"{ATTEMPTS_SUBJECT}.{subscription_id}")
        # Purged from the bucket's stream: a deletion would leave its mark for ever.
        await delivery.js.purge_stream(HEALTH_STREAM, subject=HEALTH_PREFIX + subscription_id)
        self._said.pop(subscription_id, None)
        self._alerts.pop(subscription_id, None)
