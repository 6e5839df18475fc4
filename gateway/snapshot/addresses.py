"""Finds the channel that an address belongs to: of those whose template matches it, the most specific one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from gateway.snapshot.documents import Channel
from gateway.snapshot.routing import PathTable
from gateway.wire.subjects import address_of, is_pattern, meet

Found = TypeVar("Found")
CHANNELS_KEPT = 4096
ADDRESS_MAX_CHARS = 255
"""What is found for an address or a filter is cached if that is no longer, so that the cache has a ceiling in bytes."""


class AddressTable:
    """Channels by the addresses that belong to them."""

    def __init__(self, channels: Iterable[Channel] = ()) -> None:
        self._ranked = sorted(channels, key=lambda channel: (channel.template.rank, channel.address))
        self._paths = PathTable((channel.address, channel) for channel in self._ranked)
        self._by_stream = {channel.stream: channel for channel in self._ranked}
        self._found: dict[str, tuple[Channel, Mapping[str, str]]] = {}
        self._all_covering: dict[str, tuple[Channel, ...]] = {}
        self._meeting: dict[str, tuple[Channel, ...]] = {}

    def find(self, address: str) -> tuple[Channel, Mapping[str, str]] | None:
        """Return the channel of a concrete address, and the values of its parameters."""
        cached = self._found.get(address)
        if cached is not None:
            return cached
        found = self._paths.find(address)
        if not found:
            return None
        return _kept(self._found, address, found[0])

    def of_stream(self, stream: str) -> Channel | None:
        """Return the channel whose events a stream holds."""
        return self._by_stream.get(stream)

    def covering(self, subject_filter: str) -> Channel | None:
        """Return the most specific channel that matches every address which a subject filter matches."""
        if not is_pattern(subject_filter):
            found = self.find(address_of(subject_filter))
            return found[0] if found is not None else None
        return next(iter(self.all_covering(subject_filter)), None)

    def all_covering(self, subject_filter: str) -> tuple[Channel, ...]:
        """Return every channel that matches all addresses which a subject filter matches, the most specific first."""
        cached = self._all_covering.get(subject_filter)
        if cached is not None:
            return cached
        found = tuple(channel for channel in self._ranked if channel.template.covers(subject_filter))
        return _kept(self._all_covering, subject_filter, found)

    def meeting(self, subject_filters: Iterable[str]) -> list[Channel]:
        """Return the channels that may own an address which one of the filters matches, the most specific first.

        A channel is left out if a more specific one owns all of those addresses.
        """
        met = {channel.address: channel for each in subject_filters for channel in self._meeting_one(each)}
        return list(met.values())

    def _meeting_one(self, subject_filter: str) -> tuple[Channel, ...]:
        cached = self._meeting.get(subject_filter)
        if cached is not None:
            return cached
        met: list[Channel] = []
        before: list[Channel] = []
        for channel in self._ranked:
            common = meet(subject_filter, channel.subject)
            if common is None:
                continue
            if not any(other.template.covers(common) for other in before):
                met.append(channel)
            before.append(channel)
        return _kept(self._meeting, subject_filter, tuple(met))


def _kept(cache: dict[str, Found], text: str, found: Found) -> Found:
    """Keep what was found for a text, and return it."""
    if len(text) <= ADDRESS_MAX_CHARS:
        if len(cache) >= CHANNELS_KEPT:
            cache.clear()
        cache[text] = found
    return found
