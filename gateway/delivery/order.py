"""Which of a subscription's events may be sent now: one of a key at a time, the oldest first. Arithmetic, no I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.durable.attempts import Retry
from gateway.durable.readers import Given

APART_S = 0.02
"""So far apart come those back that wait behind one event, in their order."""


@dataclass(slots=True)
class _Key:
    ids: list[int] = field(default_factory=list)
    """Events of the key that are not settled, as far as is known here, the oldest first."""
    due: dict[int, float] = field(default_factory=dict)
    """When those that are not in hand are given again."""
    waiting: list[Given] = field(default_factory=list)
    """Those in hand, behind the one that is being sent."""


class DeliveryOrder:
    """What is known of events that are out: being sent, in hand, or put off until their next try.

    An event that was put off and does not come back within ``lost_after_s`` is gone from the log: nobody waits for it.
    """

    def __init__(self, retries: Iterable[Retry], *, by_key: bool, lost_after_s: float) -> None:
        self._by_key = by_key
        self._lost_after_s = lost_after_s
        self._keys: dict[str, _Key] = {}
        self._sending: set[int] = set()
        self._retries: dict[int, Retry] = {}
        for retry in retries:
            self._retries[retry.id] = retry
            self._know(self._key(retry.key), retry.id, retry.next_at)

    @property
    def in_hand(self) -> int:
        """How many events are being sent, or wait here for one that is."""
        return len(self._sending) + sum(len(key.waiting) for key in self._keys.values())

    def waiting(self) -> Iterator[Given]:
        """Give those that wait here."""
        for key in self._keys.values():
            yield from key.waiting

    def retry(self, event_id: int) -> Retry | None:
        """Give what is known of an event whose tries have failed."""
        return self._retries.get(event_id)

    def is_sending(self, given: Given) -> bool:
        """Say whether it is to be sent now."""
        return given.event.id in self._sending

    def take(self, given: Given, now: float) -> float | None:
        """Take an event in. A number: put it off for so many seconds. None: send it, or it waits here.

        :meth:`is_sending` tells these two apart.
        """
        event_id = given.event.id
        if event_id in self._sending or any(one.event.id == event_id for one in self.waiting()):
            return None  # given again although it is in hand: its time was over
        key = self._know(self._key(given.key), event_id, now)
        self._forget_lost(key, event_id, now)
        first = key.ids[0]
        if first in self._sending:
            key.waiting.append(given)
            return None
        retry = self._retries.get(first)
        if first == event_id and (retry is None or retry.next_at <= now):
            self._sending.add(event_id)
            return None
        return self.put_off(given, now)

    def settled(self, given: Given) -> tuple[Given | None, list[Given]]:
        """Forget an event that is delivered or given up. Gives the next of its key where it is here: send it now.

        Where another comes before those that waited here, they are given beside: put them off.
        """
        event_id, name = given.event.id, self._key(given.key)
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
            return None, _emptied(key.waiting)
        key.waiting.remove(following)
        self._sending.add(following.event.id)
        return following, []

    def failed(self, given: Given, retry: Retry) -> list[Given]:
        """Note when an event is tried again. Gives it and those of its key that waited here: put them off."""
        self._retries[given.event.id] = retry
        return self.put_back(given)

    def put_back(self, given: Given) -> list[Given]:
        """Note that an event is not being sent. Gives it and those of its key that waited here: put them off."""
        self._sending.discard(given.event.id)
        return [given, *_emptied(self._keys[self._key(given.key)].waiting)]

    def put_off(self, given: Given, now: float, at_least_s: float = 0) -> float:
        """Say for how long to put an event off: until the first of its key is tried again, those behind it apart."""
        key = self._keys[self._key(given.key)]
        ahead = self._retries.get(key.ids[0])
        until_s = max((ahead.next_at if ahead is not None else now) - now, at_least_s)
        pause_s = until_s + APART_S * bisect_left(key.ids, given.event.id)
        key.due[given.event.id] = now + pause_s
        return pause_s

    def _forget_lost(self, key: _Key, event_id: int, now: float) -> None:
        while key.ids[0] != event_id and key.ids[0] not in self._sending:
            first = key.ids[0]
            # In the order of the channel one event is out at a time: another one means that the first is gone.
            if self._by_key and now < key.due[first] + self._lost_after_s:
                return
            key.ids.remove(first)
            key.due.pop(first)
            self._retries.pop(first, None)

    def _know(self, name: str, event_id: int, due: float) -> _Key:
        key = self._keys.setdefault(name, _Key())
        if event_id not in key.due:
            insort(key.ids, event_id)
        key.due[event_id] = due
        return key

    def _key(self, key: str) -> str:
        return key if self._by_key else ""


def _emptied(waiting: list[Given]) -> list[Given]:
    found = sorted(waiting, key=lambda one: one.event.id)
    waiting.clear()
    return found
