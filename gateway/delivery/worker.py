"""A worker delivers one webhook subscription: it fetches events, sends and retries them, and gives up in the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.concurrency.clock_jumps import steady_time
from gateway.concurrency.stopping import stop_tasks
from gateway.delivery.client import SendFailed
from gateway.delivery.desk import FAULTS, Desk
from gateway.delivery.order import DeliveryOrder
from gateway.durable import webhook
from gateway.durable.attempts import Retry, describe_attempt
from gateway.durable.dead_letter import UNWRITABLE, is_writable, store_dead_letter
from gateway.durable.readers import Delivery
from gateway.durable.standing import Standing, channel_of, principal_of, secrets_now, standing
from gateway.durable.webhook import Verdict, WebhookResponse
from gateway.log.event import Event
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.subscriptions import Order, State, Subscription, Why, ack_wait_s

if TYPE_CHECKING:
    from gateway.snapshot.picture import Channel

logger = logging.getLogger(__name__)

WAIT_S = 5.0
"""How long one fetch waits for the first event, and a paused worker between two checks."""
RESTART_S, RESTART_MAX_S = 0.5, 2.0
FAILURES_MAX = 20
"""After this many failed attempts in a row, of whichever events, the endpoint counts as failing."""
CHARGE_WITHIN_S = 3.0
"""How long a limit may delay an event here; then the event is postponed."""
WITHHELD_S, WITHHELD_MAX_S = 1.0, 60.0
LOST_AFTER_WAITS = 3
"""An event that is not redelivered within this many ack waits is gone from the log."""
STEADY_AFTER_S = 10.0


class Worker:
    """Delivers the events of one subscription in order, at most ``max_in_flight`` at once."""

    def __init__(self, desk: Desk, subscription: Subscription) -> None:
        self._desk = desk
        self.subscription = subscription
        self.is_failing = subscription.state_reason == Why.FAILING
        self.has_ended = False
        self.last_error: dict[str, Any] | None = None
        self.changed = asyncio.Event()
        """Set when a paused worker should check again whether it may deliver."""
        self._order = DeliveryOrder((), by_key=False, lost_after_s=0)
        self._failures = 0
        self._probe_at = 0.0
        self._delivered_at = 0.0
        self._was_cut_short = False
        """The log was unavailable while an event was sent, so the order kept here no longer matches the log."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name=f"deliver {subscription.id}")

    async def stop(self) -> None:
        """Stop at once; events that were not acknowledged will be redelivered."""
        await stop_tasks(self._task)
        await stop_tasks(*self._tasks)

    def update(self, subscription: Subscription) -> None:
        """Apply a changed subscription."""
        if subscription.version > self.subscription.version:
            was_failing, self.is_failing = self.is_failing, subscription.state_reason == Why.FAILING
            if was_failing and not self.is_failing:
                self._failures, self._probe_at = 0, 0.0
            self.has_ended = subscription.state == State.ENDED
        self.subscription = subscription
        self.changed.set()

    def standing(self, now: float) -> Standing:
        """Return the standing, including what this worker has found out and the snapshot does not show yet."""
        if self.has_ended:
            return Standing(State.ENDED, Why.GONE)
        status = standing(self._desk.snapshot, self.subscription, now)
        if self.is_failing and status.may_deliver:
            return Standing(State.PAUSED, Why.FAILING)
        return status

    async def _run(self) -> None:
        pause_s = RESTART_S
        while True:
            began_at = time.monotonic()
            try:
                await self._deliver()
            except FAULTS as error:
                logger.warning(
                    "delivery of %s interrupted: %s", self.subscription.id, str(error) or type(error).__name__
                )
            except Exception:
                logger.exception("delivery of %s failed and is restarted", self.subscription.id)
            while self._tasks:  # a task that ends may start one for the next event of its key
                await asyncio.gather(*self._tasks, return_exceptions=True)
            pause_s = RESTART_S if time.monotonic() - began_at > STEADY_AFTER_S else min(pause_s * 2, RESTART_MAX_S)
            await asyncio.sleep(pause_s)

    async def _deliver(self) -> None:
        """Deliver until an engine fails. Raises what it raised."""
        await self._allowed_channel()
        readers = self._desk.readers
        wait_s = ack_wait_s(self.subscription, self._desk.config.webhook_timeout_s)
        retries = await self._desk.attempts.retries(self.subscription.id)
        self._order = DeliveryOrder(
            retries, by_key=self.subscription.order == Order.KEY, lost_after_s=LOST_AFTER_WAITS * wait_s
        )
        await self._redeliver({retry.id for retry in retries}, wait_s)
        extended_at = time.monotonic()
        while not self._was_cut_short:
            channel = await self._allowed_channel()
            await readers.ensure(self.subscription, channel, wait_s)
            if time.monotonic() - extended_at > wait_s / 3:
                extended_at = time.monotonic()
                await readers.extend(self._order.waiting())
            room = self._room()
            if room <= 0:
                await self._until_changed(wait_s / 3)
                continue
            for delivery in await readers.fetch(self.subscription, channel, room, min(WAIT_S, wait_s / 3)):
                await self._take(channel, delivery)

    async def _redeliver(self, retried: set[int], wait_s: float) -> None:
        """Have the events that an interrupted worker had fetched redelivered at once, in order."""
        self._was_cut_short = False
        channel = await self._allowed_channel()
        await self._desk.readers.ensure(self.subscription, channel, wait_s)
        if not self.subscription.retry_schedule_s[0]:  # otherwise most of them wait for their first attempt
            await self._desk.readers.redeliver(self.subscription, channel, retried)

    async def _allowed_channel(self) -> Channel:
        """Wait until it may deliver or, while its endpoint is failing, until the next probe. Returns the channel."""
        while True:
            self.changed.clear()
            now = steady_time()
            channel = await self._desk.readers.channel_of(self._desk.snapshot, self.subscription)
            if self.standing(time.time()).may_deliver and channel is not None:
                if not self.is_failing or now >= self._probe_at:
                    return channel
                await self._until_changed(min(self._probe_at - now, WAIT_S))
            else:
                await self._until_changed(WAIT_S)

    def _room(self) -> int:
        limit = 1 if self.is_failing else self.subscription.max_in_flight
        return limit - self._order.in_hand

    async def _until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return
        finally:
            self.changed.clear()

    async def _take(self, channel: Channel, delivery: Delivery) -> None:
        first_pause_s = self.subscription.retry_schedule_s[0]
        if delivery.attempt == 1 and first_pause_s > 0:
            await self._desk.readers.nak(delivery, webhook.pause_s(self.subscription.retry_schedule_s, 0))
            return
        delay_s = self._order.take(delivery, steady_time())
        if delay_s is not None:
            await self._desk.readers.nak(delivery, delay_s)
        elif self._order.is_sending(delivery):
            self._spawn(self._send(channel, delivery))

    def _log_interruption(self, error: Exception) -> None:
        logger.warning("delivery of %s interrupted: %s", self.subscription.id, str(error) or type(error).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.changed.set()

    async def _send(self, channel: Channel, delivery: Delivery) -> None:
        """Send one event once and handle the outcome. Where the log becomes unavailable, the event is redelivered."""
        try:
            await self._try(channel, delivery)
        except FAULTS as error:
            self._log_interruption(error)
            self._was_cut_short = True
        except Exception:
            logger.exception("delivery of %s failed", self.subscription.id)
        if self._order.is_sending(delivery):
            self._order.put_back(delivery)

    async def _try(self, channel: Channel, delivery: Delivery) -> None:
        if delivery.event.has_expired(time.time()):
            await self._done(delivery)
            return
        if not is_writable(delivery.event):
            await store_dead_letter(self._desk.log, channel, self.subscription, delivery, 1, UNWRITABLE)
            await self._done(delivery)
            return
        body = delivery.event.frame().encode()
        wait_s = WITHHELD_S if not self.standing(time.time()).may_deliver else await self._charge(delivery, body)
        if wait_s:
            await self._put_back(delivery, wait_s)
            return
        desk, subscription = self._desk, self.subscription
        previous = self._order.retry(delivery.event.id)
        number = (previous.tries if previous else 0) + 1
        at, started_at = time.time(), time.monotonic()
        headers = self._headers(delivery.event, body, at)
        response: WebhookResponse | None = None
        try:
            response = await desk.client.send(subscription.url, headers, body)
            verdict = webhook.verdict(response)
            error = None if verdict is Verdict.DELIVERED else f"It answered {response.status}."
        except SendFailed as failure:
            response, verdict, error = failure.response, Verdict.FAILED, str(failure)
        retry = None
        if verdict is Verdict.FAILED:
            retry = self._next(delivery, previous, number, response, at)
        outcome = "dead" if verdict is Verdict.FAILED and retry is None else verdict.value
        await desk.attempts.record(
            subscription.id,
            describe_attempt(
                delivery, number, outcome,
                url=subscription.url, headers=headers, response=response, error=error, at=at,
                duration_s=time.monotonic() - started_at,
            ),
        )  # fmt: skip
        if error is not None:
            self.last_error = {"at": at, "event": str(delivery.event.id), "detail": error}
        await self._settle(channel, delivery, verdict, retry, number, error or "")

    def _headers(self, event: Event, body: bytes, at: float) -> dict[str, str]:
        return webhook.headers(
            f"{self.subscription.id}_{event.id}",
            body,
            secrets_now(self._desk.config.secret_key, self.subscription, at),
            at,
            event.traceparent,
            event.extensions.get("tracestate"),
        )

    def _next(
        self, delivery: Delivery, previous: Retry | None, tries: int, response: WebhookResponse | None, at: float
    ) -> Retry | None:
        """Return the next attempt of an event; None after its last one."""
        subscription = self.subscription
        if tries >= subscription.max_attempts:
            return None
        pause = max(webhook.pause_s(subscription.retry_schedule_s, tries), webhook.retry_after_s(response, at))
        return Retry(
            delivery.event.id,
            delivery.key,
            tries,
            previous.first_at if previous else steady_time(),
            steady_time() + pause,
        )

    async def _settle(
        self, channel: Channel, delivery: Delivery, verdict: Verdict, retry: Retry | None, tries: int, error: str
    ) -> None:
        if verdict is Verdict.DELIVERED:
            self._desk.usage.delivered(self._call(delivery), 1, len(delivery.event.data))
            self._recovered()
            await self._done(delivery)
        elif verdict is Verdict.GONE:
            self.has_ended = True
            self._desk.reports.add(self.subscription, State.ENDED, Why.GONE, "the endpoint answered 410")
            await self._put_back(delivery, WITHHELD_S)
        elif retry is not None:
            self._count_failure()
            await self._desk.attempts.save_retry(self.subscription.id, retry)
            await self._postpone(self._order.failed(delivery, retry))
        else:
            retried = self._order.retry(delivery.event.id)
            self._count_failure(is_dead=retried is not None and self._delivered_at < retried.first_at)
            await store_dead_letter(self._desk.log, channel, self.subscription, delivery, tries, error)
            await self._done(delivery)

    async def _done(self, delivery: Delivery) -> None:
        """Acknowledge an event, and send the next of its key."""
        await self._desk.readers.ack(delivery)
        had_failed = self._order.retry(delivery.event.id) is not None
        following, behind = self._order.settled(delivery)
        if following is not None:
            channel = channel_of(self._desk.snapshot, self.subscription)
            if channel is None or self.is_failing:
                behind = self._order.put_back(following)
            else:
                self._spawn(self._send(channel, following))
        await self._postpone(behind)
        if had_failed:
            await self._desk.attempts.forget_retries(self.subscription.id, delivery.event.id)

    async def _put_back(self, delivery: Delivery, seconds: float) -> None:
        """Postpone an event that was not sent; this does not count as an attempt."""
        await self._postpone(self._order.put_back(delivery), seconds)

    async def _postpone(self, events: list[Delivery], at_least_s: float = 0) -> None:
        now = steady_time()
        for one in events:
            await self._desk.readers.nak(one, self._order.postpone(one, now, at_least_s))

    async def _charge(self, delivery: Delivery, body: bytes) -> float:
        """Charge the consumer's limits. Returns 0, or the seconds to wait where a limit is reached."""
        try:
            async with asyncio.timeout(CHARGE_WITHIN_S):
                await self._desk.limiter.charge(self._call(delivery), messages_out=1, bytes_out=len(body))
        except TimeoutError:
            return WITHHELD_S
        except Refused as refused:
            return min(max(refused.retry_after_s or 0, WITHHELD_S), WITHHELD_MAX_S)
        return 0.0

    def _call(self, delivery: Delivery) -> Call:
        subscription = self.subscription
        principal = principal_of(self._desk.snapshot, subscription)
        return Call(Protocol.HTTP, delivery.event.address, "", target=subscription.channel, principal=principal)

    def _count_failure(self, *, is_dead: bool = False) -> None:
        """Count a failed attempt. A failing endpoint is only probed: with one event at a time, at growing intervals."""
        self._failures += 1
        if self.is_failing:
            probes = self._failures
        elif is_dead or self._failures >= FAILURES_MAX:
            self.is_failing, self._failures, probes = True, 0, 0
            note = self.last_error["detail"] if self.last_error else ""
            self._desk.reports.add(self.subscription, State.PAUSED, Why.FAILING, note)
        else:
            return
        self._probe_at = steady_time() + webhook.pause_s(self.subscription.retry_schedule_s, probes)

    def _recovered(self) -> None:
        self._failures, self._delivered_at = 0, steady_time()
        if self.is_failing:
            self.is_failing = False
            self._desk.reports.add(self.subscription, State.ACTIVE, "", "the endpoint has recovered")
