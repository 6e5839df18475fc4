"""Request bodies held in memory until they are complete and answered: bounded by consumer and by process."""

from __future__ import annotations

from gateway.refusals import Reason, Refused

CONSUMER_MAX_BYTES = 64 * 1024 * 1024
PROCESS_MAX_BYTES = 256 * 1024 * 1024
RETRY_AFTER_S = 1.0


class HeldBodies:
    """Counts the bytes of held bodies. A consumer may hold no more than what is still free for all others.

    Whoever comes later therefore still finds room, though less of it the more the others hold.
    """

    def __init__(
        self, consumer_max_bytes: int = CONSUMER_MAX_BYTES, process_max_bytes: int = PROCESS_MAX_BYTES
    ) -> None:
        self._consumer_max_bytes = consumer_max_bytes
        self._process_max_bytes = process_max_bytes
        self._held: dict[str, int] = {}
        self._total = 0

    @property
    def total_bytes(self) -> int:
        """The bytes held for all consumers."""
        return self._total

    def of(self, consumer: str) -> int:
        """Return the bytes held for a consumer."""
        return self._held.get(consumer, 0)

    def hold(self, consumer: str, size: int) -> None:
        """Count more bytes of a body. Raises Refused, and counts none, beyond a bound."""
        held = self._held.get(consumer, 0) + size
        if held > self._consumer_max_bytes:
            raise Refused(
                Reason.RATE_LIMITED,
                f"Unfinished request bodies of one consumer hold at most {self._consumer_max_bytes} bytes. "
                "Finish some, or send fewer at once.",
                retry_after_s=RETRY_AFTER_S,
                cause="bodies-of-consumer",
            )
        if held > self._process_max_bytes - self._total - size:
            raise Refused(
                Reason.OVERLOADED,
                "The gateway holds too many unfinished request bodies.",
                retry_after_s=RETRY_AFTER_S,
                cause="bodies-of-process",
            )
        self._held[consumer] = held
        self._total += size

    def release(self, consumer: str, size: int) -> None:
        """Count bytes no longer."""
        self._total -= size
        left = self._held[consumer] - size
        if left:
            self._held[consumer] = left
        else:
            del self._held[consumer]
