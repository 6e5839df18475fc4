"""How often each packet id of a session was released: what tells a publish that is sent again from the next one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

USES_MAX = 256
"""Released packet ids that are counted one by one, beside those in use."""


@dataclass(slots=True)
class Uses:
    """The number of the current or next use of each packet id: no id ever has the same number for two publishes."""

    floor: int = 0
    """The number of the ids that are not counted one by one."""
    counted: dict[int, int] = field(default_factory=dict)

    def number(self, packet_id: int) -> int:
        """Return the number of the id's use from its PUBLISH to its PUBREL."""
        return self.counted.get(packet_id, self.floor)

    def end(self, packet_id: int) -> None:
        """End the use of an id: a later publish with it is another one."""
        self.counted[packet_id] = self.number(packet_id) + 1

    def is_full(self, in_use: Collection[int]) -> bool:
        """Return whether more ids are counted than should be kept."""
        return len(self.counted) > USES_MAX + len(in_use)

    def compact(self, in_use: Collection[int]) -> None:
        """Count only the ids in use; all others get one number, which none of them has had."""
        kept = {packet_id: self.number(packet_id) for packet_id in in_use}
        self.floor = max([self.floor, *self.counted.values()]) + 1
        self.counted = kept
