"""Delivers one webhook subscription: fetches, sends, tries again, gives up. One worker's trouble is no other's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from gateway.call import Call
from gateway.concurrency.clock_jumps import steady_time
from gateway.concurrency.stopping import stop_tasks
from gateway.delivery.client import SendFailed
from gateway.delivery.order import DeliveryOrder
from gateway.durable import webhook
from gateway.durable.attempts import Retry, attempt
from gateway.durable.readers import Given
from gateway.durable.standing import Standing, channel_of, principal_of, secrets_now, standing
from gateway.durable.undelivered import UNWRITABLE, bury, writable
from gateway.durable.webhook import Answer, Verdict
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.subscriptions import Order, State, Subscription, Why, ack_wait_s, window

if TYPE_CHECKING:
    from gateway.delivery.process import Delivery
    from gateway.snapshot.picture import Channel

logger = logging.getLogger(__name__)

WAIT_S = 5.0
"""How long one question for events waits for the first to come."""
RESTART_S, RESTART_MAX_S = 0.5, 2.0
FAILURES_MAX = 20
"""So many tries in a row have failed: the endpoint is dead, whichever events they were."""
CHARGE_WITHIN_S = 3.0
"""A limit that delays is waited for here so long; then the event is put off."""
HELD_BACK_S, HELD_BACK_MAX_S = 1.0, 60.0
LOST_AFTER_WAITS = 3
"""What has not come back after so many times the wait is gone from the log."""
STEADY_AFTER_S = 10.0
FAULTS = (Refused, LookupError, NatsError, APIError, TimeoutError, OSError)
"""What an engine that is away may raise here."""


class Worker:
    """One subscription's deliveries, in order, never more at once than it allows."""

    def __init__(self, delivery: Delivery, subscription: Subscription) -> None:
        self._delivery = delivery
        self.subscription = subscription
        self.is_failing = subscription.state_reason == Why.FAILING
        self.has_ended = False
        self.last_error: dict[str, Any] | None = None
        self.changed = asyncio.Event()
        """Set where something has happened that may let it go on."""
        self._order = DeliveryOrder((), by_key=False, lost_after_s=0)
        self._failures = 0
        self._probe_at = 0.0
        self._delivered_at = 0.0
        self._was_cut_short = False
        """The log was away while an event was sent: what is in hand here is not what is out there."""
        self._sends: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name=f"deliver {subscription.id}")

    async def stop(self) -> None:
        """Stop at once; what was being sent and not settled will be given again."""
        await stop_tasks(self._task)
        await stop_tasks(*self._sends)

    def follow(self, subscription: Subscription) -> None:
        """Take over what has changed."""
        if subscription.version > self.subscription.version:
            was_failing, self.is_failing = self.is_failing, subscription.state_reason == Why.FAILING
            if was_failing and not self.is_failing:
                self._failures, self._probe_at = 0, 0.0
            self.has_ended = subscription.state == State.ENDED
        self.subscription = subscription
        self.changed.set()

    def standing(self, now: float) -> Standing:
        """Say how it stands, as this worker knows it."""
        if self.has_ended:
            return Standing(State.ENDED, Why.GONE)
        stands = standing(self._delivery.snapshot, self.subscription, now)
        if self.is_failing and stands.may_deliver:
            return Standing(State.PAUSED, Why.FAILING)
        return stands

    async def _run(self) -> None:
        pause_s = RESTART_S
        while True:
            began_at = time.monotonic()
            try:
                await self._deliver()
            except FAULTS as error:
                logger.warning("delivering %s waits: %s", self.subscription.id, str(error) or type(error).__name__)
            except Exception:
                logger.exception("delivering %s failed and begins again", self.subscription.id)
            while self._sends:  # one that ends may send the next of its key
                await asyncio.gather(*self._sends, return_exceptions=True)
            pause_s = RESTART_S if time.monotonic() - began_at > STEADY_AFTER_S else min(pause_s * 2, RESTART_MAX_S)
            await asyncio.sleep(pause_s)

    async def _deliver(self) -> None:
        """Deliver until something fails."""
        await self._allowed_channel()
        readers = self._delivery.readers
        wait_s = ack_wait_s(self.subscription, self._delivery.config.webhook_timeout_s)
        retries = await self._delivery.attempts.retries(self.subscription.id)
        self._order = DeliveryOrder(
            retries, by_key=self.subscription.order == Order.KEY, lost_after_s=LOST_AFTER_WAITS * wait_s
        )
        await self._begin_again({retry.id for retry in retries}, wait_s)
        held_at = time.monotonic()
        while not self._was_cut_short:
            channel = await self._allowed_channel()
            await readers.ensure(self.subscription, channel, wait_s, window(self.subscription))
            if time.monotonic() - held_at > wait_s / 3:
                held_at = time.monotonic()
                await readers.hold(self._order.waiting())
            room = self._room()
            if room <= 0:
                await self._until_changed(wait_s / 3)
                continue
            for given in await readers.fetch(self.subscription, channel, room, min(WAIT_S, wait_s / 3)):
                await self._take(channel, given)

    async def _begin_again(self, tried: set[int], wait_s: float) -> None:
        """Have what was in the hands of one that was killed or cut short given again, in its order and at once."""
        self._was_cut_short = False
        channel = await self._allowed_channel()
        await self._delivery.readers.ensure(self.subscription, channel, wait_s, window(self.subscription))
        if not self.subscription.retry_schedule_s[0]:  # else most of them wait for their first try
            await self._delivery.readers.give_again(self.subscription, channel, tried)

    async def _allowed_channel(self) -> Channel:
        """Wait until it may deliver; while its endpoint is dead, until the next probe is due."""
        while True:
            self.changed.clear()
            now = steady_time()
            channel = channel_of(self._delivery.snapshot, self.subscription)
            if self.standing(time.time()).may_deliver and channel is not None:
                if not self.is_failing or now >= self._probe_at:
                    return channel
                await self._until_changed(min(self._probe_at - now, WAIT_S))
            else:
                await self._until_changed(WAIT_S)

    def _room(self) -> int:
        most = 1 if self.is_failing else self.subscription.max_in_flight
        return most - self._order.in_hand

    async def _until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return
        finally:
            self.changed.clear()

    async def _take(self, channel: Channel, given: Given) -> None:
        first_pause_s = self.subscription.retry_schedule_s[0]
        if given.attempt == 1 and first_pause_s > 0:
            await self._delivery.readers.put_off(given, webhook.pause_s(self.subscription.retry_schedule_s, 0))
            return
        later_s = self._order.take(given, steady_time())
        if later_s is not None:
            await self._delivery.readers.put_off(given, later_s)
        elif self._order.is_sending(given):
            self._spawn(self._send(channel, given))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        self.changed.set()

    async def _send(self, channel: Channel, given: Given) -> None:
        """Send one event once, and see to what became of it. Where the log goes away meanwhile it is given again."""
        try:
            await self._try(channel, given)
        except FAULTS as error:
            logger.warning("delivering %s was cut short: %s", self.subscription.id, str(error) or type(error).__name__)
            self._was_cut_short = True
        except Exception:
            logger.exception("delivering %s failed", self.subscription.id)
        if self._order.is_sending(given):
            self._order.put_back(given)

    async def _try(self, channel: Channel, given: Given) -> None:
        if not writable(given.event):
            await bury(self._delivery.log, channel, self.subscription, given, 1, UNWRITABLE)
            await self._done(given)
            return
        body = given.event.frame().encode()
        held_back_s = HELD_BACK_S if not self.standing(time.time()).may_deliver else await self._charge(given, body)
        if held_back_s:
            await self._put_back(given, held_back_s)
            return
        delivery, subscription = self._delivery, self.subscription
        before = self._order.retry(given.event.id)
        number = (before.tries if before else 0) + 1
        at, began_at = time.time(), time.monotonic()
        headers = webhook.headers(
            f"{subscription.id}_{given.event.id}",
            body,
            secrets_now(delivery.config.secret_key, subscription, at),
            at,
            given.event.traceparent,
            given.event.extensions.get("tracestate"),
        )
        answer: Answer | None = None
        try:
            answer = await delivery.client.send(subscription.url, webhook.request(subscription.url, headers, body))
            verdict = webhook.verdict(answer)
            error = None if verdict is Verdict.DELIVERED else f"It answered {answer.status}."
        except SendFailed as failure:
            answer, verdict, error = failure.answer, Verdict.FAILED, str(failure)
        retry = None
        if verdict is Verdict.FAILED:
            retry = self._next(given, before, number, answer, at)
        outcome = "dead" if verdict is Verdict.FAILED and retry is None else verdict.value
        await delivery.attempts.note(
            subscription.id,
            attempt(
                given, number, outcome,
                url=subscription.url, headers=headers, answer=answer, error=error, at=at,
                duration_s=time.monotonic() - began_at,
            ),
        )  # fmt: skip
        if error is not None:
            self.last_error = {"at": at, "event": str(given.event.id), "detail": error}
        await self._settle(channel, given, verdict, retry, number, error or "")

    def _next(self, given: Given, before: Retry | None, tries: int, answer: Answer | None, at: float) -> Retry | None:
        """Say when an event is tried again; None where that was its last try."""
        subscription = self.subscription
        if tries >= subscription.max_attempts:
            return None
        pause = max(webhook.pause_s(subscription.retry_schedule_s, tries), webhook.retry_after_s(answer, at))
        return Retry(
            given.event.id, given.key, tries, before.first_at if before else steady_time(), steady_time() + pause
        )

    async def _settle(
        self, channel: Channel, given: Given, verdict: Verdict, retry: Retry | None, tries: int, error: str
    ) -> None:
        if verdict is Verdict.DELIVERED:
            self._delivery.usage.delivered(self._call(given), 1, len(given.event.data))
            await self._is_back()
            await self._done(given)
        elif verdict is Verdict.GONE:
            self.has_ended = True
            self._delivery.report_state(self.subscription, State.ENDED, Why.GONE, "the endpoint answered 410")
            await self._put_back(given, HELD_BACK_S)
        elif retry is not None:
            self._has_failed()
            await self._delivery.attempts.failed(self.subscription.id, retry)
            await self._put_off(self._order.failed(given, retry))
        else:
            before = self._order.retry(given.event.id)
            self._has_failed(is_dead=before is not None and self._delivered_at < before.first_at)
            await bury(self._delivery.log, channel, self.subscription, given, tries, error)
            await self._done(given)

    async def _done(self, given: Given) -> None:
        """Settle an event for good, and send the next of its key."""
        await self._delivery.readers.settle(given)
        had_failed = self._order.retry(given.event.id) is not None
        following, behind = self._order.settled(given)
        if following is not None:
            channel = channel_of(self._delivery.snapshot, self.subscription)
            if channel is None or self.is_failing:
                behind = self._order.put_back(following)
            else:
                self._spawn(self._send(channel, following))
        await self._put_off(behind)
        if had_failed:
            await self._delivery.attempts.settled(self.subscription.id, given.event.id)

    async def _put_back(self, given: Given, seconds: float) -> None:
        """Put an event off that was not tried: no try of it is used up."""
        await self._put_off(self._order.put_back(given), seconds)

    async def _put_off(self, events: list[Given], at_least_s: float = 0) -> None:
        now = steady_time()
        for one in events:
            await self._delivery.readers.put_off(one, self._order.put_off(one, now, at_least_s))

    async def _charge(self, given: Given, body: bytes) -> float:
        """Charge the consumer's limits. Gives 0, or the seconds after which to ask again where they say no."""
        try:
            async with asyncio.timeout(CHARGE_WITHIN_S):
                await self._delivery.limiter.charge(self._call(given), messages_out=1, bytes_out=len(body))
        except TimeoutError:
            return HELD_BACK_S
        except Refused as refused:
            return min(max(refused.retry_after_s or 0, HELD_BACK_S), HELD_BACK_MAX_S)
        return 0.0

    def _call(self, given: Given) -> Call:
        subscription = self.subscription
        principal = principal_of(self._delivery.snapshot, subscription)
        return Call(Protocol.HTTP, given.event.address, "", target=subscription.channel, principal=principal)

    def _has_failed(self, *, is_dead: bool = False) -> None:
        """Count a failure; where the endpoint is dead, begin to probe: one event at a time, with growing pauses."""
        self._failures += 1
        if self.is_failing:
            probes = self._failures
        elif is_dead or self._failures >= FAILURES_MAX:
            self.is_failing, self._failures, probes = True, 0, 0
            note = self.last_error["detail"] if self.last_error else ""
            self._delivery.report_state(self.subscription, State.PAUSED, Why.FAILING, note)
        else:
            return
        self._probe_at = steady_time() + webhook.pause_s(self.subscription.retry_schedule_s, probes)

    async def _is_back(self) -> None:
        self._failures, self._delivered_at = 0, steady_time()
        if self.is_failing:
            self.is_failing = False
            self._delivery.report_state(self.subscription, State.ACTIVE, "", "the endpoint is back")
