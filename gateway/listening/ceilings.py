"""How many connections one process keeps, derived from its settings and the files that it may open."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Self

from gateway.config import Config

FILES_WHEN_UNLIMITED = 1024 * 1024
KEPT_FREE_MIN = 64
ANONYMOUS_MIN = 16
CONNECTION_BYTES = 16 * 1024
"""What a connection takes apart from its head."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings of one process. *Anonymous* are connections on which no call has proved a credential."""

    files: int
    """From this descriptor on, files are scarce: the rest is for upstreams, engines and logs."""
    anonymous: int
    """Anonymous connections in all. Beyond it, the oldest are closed at once."""
    of_network_at_once: int
    """Those of one IPv4 address or IPv6 /64, at any moment: enough for many clients that connect at the same time."""
    of_network: int
    """Those of one IPv4 address or IPv6 /64 that have been anonymous for longer than a client needs."""

    @classmethod
    def of(cls, config: Config, files: int, room_bytes: int) -> Self:
        """Return the ceilings of a process that may open this many files and use so much more memory.

        At most a quarter of the files is for anonymous connections, and half of the memory if each sends the longest
        head. An eighth of the files is kept free.
        """
        each_bytes = config.head_max_bytes + config.path_max_bytes + CONNECTION_BYTES
        most = min(config.anonymous_connections_max, files // 4, room_bytes // 2 // each_bytes)
        anonymous = max(ANONYMOUS_MIN, most)
        at_once = anonymous // 2
        return cls(
            files=files - max(KEPT_FREE_MIN, files // 8),
            anonymous=anonymous,
            of_network_at_once=at_once,
            of_network=min(config.anonymous_connections_per_ip, at_once),
        )


def open_files_max() -> int:
    """Return how many files this process may open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_WHEN_UNLIMITED if limit == resource.RLIM_INFINITY else limit
