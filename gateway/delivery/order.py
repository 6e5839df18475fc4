"""The delivery order of a subscription: one event of a key at a time, oldest first. Pure arithmetic, no I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.durable.attempts import Retry
from gateway.durable.readers import Delivery

SPACING_S = 0.02
"""Events that were postponed behind one of their key come back this far apart, so in their order."""


@dataclass(slots=True)
class _Key:
    ids: list[int] = field(default_factory=list)
    """Ids of the unacknowledged events of the key, oldest first, as far as known in this process."""
    due: dict[int, float] = field(default_factory=dict)
    """When each postponed event is redelivered."""
    waiting: list[Delivery] = field(default_factory=list)
    """Events that were fetched and wait behind the one that is being sent."""


class DeliveryOrder:
    """The unacknowledged events of a subscription: being sent, waiting, or postponed until their next attempt.

    A postponed event that is not redelivered within ``lost_after_s`` is gone from the log, and is no longer waited for.
    """

    def __init__(self, retries: Iterable[Retry], *, by_key: bool, lost_after_s: float) -> None:
        self._by_key = by_key
        self._lost_after_s = lost_after_s
        self._keys: dict[str, _Key] = {}
        self._sending: set[int] = set()
        self._retries: dict[int, Retry] = {}
        for retry in retries:
            self._retries[retry.id] = retry
            self._track(self._name(retry.key), retry.id, retry.next_at)

    @property
    def in_hand(self) -> int:
        """Return the number of events that are being sent, or wait for one that is."""
        return len(self._sending) + sum(len(key.waiting) for key in self._keys.values())

    def waiting(self) -> Iterator[Delivery]:
        """Iterate over the events that wait for another one."""
        for key in self._keys.values():
            yield from key.waiting

    def retry(self, event_id: int) -> Retry | None:
        """Return the failed attempts of an event; None where none has failed."""
        return self._retries.get(event_id)

    def is_sending(self, delivery: Delivery) -> bool:
        """Return whether the event is to be sent now."""
        return delivery.event.id in self._sending

    def take(self, delivery: Delivery, now: float) -> float | None:
        """Take in a fetched event. Returns the seconds to postpone it by, or None: send it, or it waits here.

        :meth:`is_sending` tells the two apart.
        """
        event_id = delivery.event.id
        if event_id in self._sending or any(one.event.id == event_id for one in self.waiting()):
            return None  # redelivered while in hand, because its ack wait was over
        key = self._track(self._name(delivery.key), event_id, now)
        self._drop_lost(key, event_id, now)
        first = key.ids[0]
        if first in self._sending:
            key.waiting.append(delivery)
            return None
        retry = self._retries.get(first)
        if first == event_id and (retry is None or retry.next_at <= now):
            self._sending.add(event_id)
            return None
        return self.postpone(delivery, now)

    def settled(self, delivery: Delivery) -> tuple[Delivery | None, list[Delivery]]:
        """Remove an event that was delivered or given up.

        Returns the next event of its key to send now, and the events to postpone: those that waited here although an
        older event of the key is still out.
        """
        event_id, name = delivery.event.id, self._name(delivery.key)
        self._sending.discard(event_id)
        self._retries.pop(event_id, None)
        key = self._keys[name]
        key.ids.remove(event_id)
        key.due.pop(event_id)
        if not key.ids:
            del self._keys[name]
            return None, []
        following = next((one for one in key.waiting if one.event.id == key.ids[0]), None)
        if following is None:
            return None, _take_all(key.waiting)
        key.waiting.remove(following)
        self._sending.add(following.event.id)
        return following, []

    def failed(self, delivery: Delivery, retry: Retry) -> list[Delivery]:
        """Record a failed attempt. Returns the event and those of its key that waited: postpone them."""
        self._retries[delivery.event.id] = retry
        return self.put_back(delivery)

    def put_back(self, delivery: Delivery) -> list[Delivery]:
        """Record that an event is not being sent. Returns it and those of its key that waited: postpone them."""
        self._sending.discard(delivery.event.id)
        return [delivery, *_take_all(self._keys[self._name(delivery.key)].waiting)]

    def postpone(self, delivery: Delivery, now: float, at_least_s: float = 0) -> float:
        """Return the seconds to postpone an event by: until the next attempt of the first of its key, spaced apart."""
        key = self._keys[self._name(delivery.key)]
        first = self._retries.get(key.ids[0])
        until_s = max((first.next_at if first is not None else now) - now, at_least_s)
        pause_s = until_s + SPACING_S * bisect_left(key.ids, delivery.event.id)
        key.due[delivery.event.id] = now + pause_s
        return pause_s

    def _drop_lost(self, key: _Key, event_id: int, now: float) -> None:
        while key.ids[0] != event_id and key.ids[0] not in self._sending:
            first = key.ids[0]
            # In channel order one event is out at a time: another event means that the first is gone.
            if self._by_key and now < key.due[first] + self._lost_after_s:
                return
            key.ids.remove(first)
            key.due.pop(first)
            self._retries.pop(first, None)

    def _track(self, name: str, event_id: int, due: float) -> _Key:
        key = self._keys.setdefault(name, _Key())
        if event_id not in key.due:
            insort(key.ids, event_id)
        key.due[event_id] = due
        return key

    def _name(self, key: str) -> str:
        return key if self._by_key else ""


def _take_all(waiting: list[Delivery]) -> list[Delivery]:
    taken = sorted(waiting, key=lambda one: one.event.id)
    waiting.clear()
    return taken
