"""The TCP connections of one process, and which of them are closed when there are too many.

A connection is *anonymous* until a call on it has proved a credential, and again once such a call is refused. Anonymous
connections have ceilings by network and in all; the others are bounded by the limits of their consumers. A new
connection is never refused because others of its network are idle: the oldest are closed instead, so that a client
that sends its key at once is served whatever strangers do at the same address.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import StrEnum
from itertools import islice

from gateway.config import Network
from gateway.identity.client_address import is_trusted, network_of
from gateway.listening.ceilings import Ceilings

GRACE_S = 2.0
"""How long a connection may be anonymous before the ceiling of its network applies."""
ANONYMOUS_WHEN_TIGHT = 32
"""Anonymous connections in all while memory is scarce."""
SHED_AT_ONCE = 256
"""Connections closed in one sweep: more would hold up all others."""
EXAMINED = 64
"""Proved connections that are examined for an idle one at a time."""


class Ceiling(StrEnum):
    """Why a connection was closed or not accepted: a label of the metrics."""

    ADDRESS = "address"
    PROCESS = "process"
    FILES = "files"
    MEMORY = "memory"


class TcpConnection:
    """One accepted TCP connection."""

    __slots__ = ("_connections", "anonymous_since", "close", "ip", "is_busy", "is_confirmed", "is_proved", "is_shed",
                 "network", "own_network", "port")  # fmt: skip

    def __init__(self, connections: TcpConnections, ip: str, port: int) -> None:
        self._connections = connections
        self.ip = ip
        """The client's address: the socket's, or the one that a PROXY header reports."""
        self.port = port
        self.own_network = self.network = connections.network_of(ip)
        """What it is counted as, if it is anonymous; empty for a proxy, whose connections are those of many clients."""
        self.is_proved = False
        self.is_busy = False
        """A request is being answered."""
        self.is_confirmed = False
        """The request that is being answered has proved a credential."""
        self.anonymous_since = 0.0
        self.is_shed = False
        """It was closed because of a ceiling."""
        self.close: Callable[[], None] = nothing
        """Closes it because of a ceiling."""

    @property
    def is_of_proxy(self) -> bool:
        """Whether a trusted proxy made it."""
        return not self.own_network

    def came_from(self, ip: str, port: int) -> None:
        """Set the client that a PROXY header reports."""
        self.ip, self.port = ip, port
        self.own_network = self._connections.network_of(ip)
        self._connections.recount(self, self.own_network)

    def closed_by(self, close: Callable[[], None]) -> None:
        """Set what closes it: at once, if a ceiling was exceeded meanwhile."""
        self.close = close
        if self.is_shed:
            close()

    def busy(self) -> None:
        """Note that a request begins."""
        self.is_confirmed = False
        if not self.is_busy:
            self.is_busy = True
            if not self.is_proved:
                self._connections.rearrange(self)

    def asked_by(self, ip: str) -> None:
        """Count it as the client's for which a proxy passes on a request, until that is answered."""
        if not self.own_network and not self.is_proved and ip != self.ip:
            self._connections.recount(self, self._connections.network_of(ip))

    def proved(self) -> None:
        """Note that the call in progress has proved a credential."""
        self.is_confirmed = True
        if not self.is_proved:
            self._connections.proved(self)

    def carries(self, ip: str) -> None:
        """Note that a request begins which has proved a credential, for a client of this address."""
        if self.is_proved and self.own_network:
            self.is_busy = self.is_confirmed = True
            return
        self.busy()
        self.asked_by(ip)
        self.proved()

    def unproved(self) -> None:
        """Note that the call in progress is refused: its caller holds nothing here."""
        self.is_confirmed = False
        if self.is_proved:
            self._connections.unproved(self)

    def idle(self) -> None:
        """Note that every request is answered. Without a credential in the last one it is anonymous."""
        self.is_busy = False
        if self.is_proved:
            if not self.is_confirmed:
                self._connections.unproved(self)
        else:
            self._connections.recount(self, self.own_network)

    def closed(self) -> None:
        """Note that it is closed."""
        self._connections.leave(self)
        # Its protocol refers to it; as a cycle both would stay until a collection, which stops all traffic.
        self.close = nothing


class Group:
    """Anonymous connections of one network, or of all: those that wait for a request, and those that are answered."""

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[TcpConnection, None] = OrderedDict()
        self.busy: OrderedDict[TcpConnection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.busy)

    def add(self, connection: TcpConnection) -> None:
        """Add a connection, as the youngest of its kind."""
        (self.busy if connection.is_busy else self.waiting)[connection] = None

    def remove(self, connection: TcpConnection) -> None:
        """Remove a connection, of whichever kind it was."""
        self.waiting.pop(connection, None)
        self.busy.pop(connection, None)

    def oldest(self, newest: TcpConnection | None = None) -> TcpConnection | None:
        """Return the connection that has waited longest, or else been answered longest; never the newest."""
        return next((one for kind in (self.waiting, self.busy) for one in kind if one is not newest), None)


class TcpConnections:
    """The connections of one process."""

    def __init__(
        self, ceilings: Ceilings, proxies: tuple[Network, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ceilings = ceilings
        self.shed: Counter[Ceiling] = Counter()
        """Connections that were closed, or not accepted, by the ceiling that they exceeded."""
        self.is_tight = False
        """Memory is scarce."""
        self._proxies = proxies
        self._clock = clock
        self._anonymous = Group()
        self._networks: dict[str, Group] = {}
        self._crowded: set[str] = set()
        """Networks that may be beyond their ceiling."""
        self._proved: OrderedDict[TcpConnection, None] = OrderedDict()

    @property
    def anonymous(self) -> int:
        """How many are anonymous."""
        return len(self._anonymous)

    @property
    def with_credential(self) -> int:
        """How many have proved a credential."""
        return len(self._proved)

    def network_of(self, ip: str) -> str:
        """Return the network that an address is counted as; empty for a trusted proxy."""
        return "" if is_trusted(ip, self._proxies) else network_of(ip)

    def may_open(self, descriptor: int) -> bool:
        """Return whether a connection of this descriptor may be kept, after closing another if files are scarce.

        The kernel takes the lowest free descriptor, so that a high one shows that as many files are open.
        """
        if descriptor < self.ceilings.files or self.make_room():
            return True
        self.shed[Ceiling.FILES] += 1
        return False

    def make_room(self, most: int = 1) -> bool:
        """Close the oldest anonymous connections, or else an idle one, for want of files; False if there is none."""
        chosen = [*islice(self._anonymous.waiting, most), *islice(self._anonymous.busy, most)][:most]
        chosen = chosen or self._an_idle_one()
        for connection in chosen:
            self._shed(connection, Ceiling.FILES)
        return bool(chosen)

    def _an_idle_one(self) -> list[TcpConnection]:
        """Return a proved connection without a request, if one is among those that were examined longest ago."""
        for connection in list(islice(self._proved, EXAMINED)):
            if not connection.is_busy:
                return [connection]
            self._proved.move_to_end(connection)
        return []

    def join(self, connection: TcpConnection) -> None:
        """Add an anonymous connection; the oldest are closed if there are too many now."""
        connection.anonymous_since = self._clock()
        self._add(connection)
        self._hold_ceilings(connection)

    def leave(self, connection: TcpConnection) -> None:
        """Remove a connection, if it is there."""
        self._proved.pop(connection, None)
        self._remove(connection)

    def proved(self, connection: TcpConnection) -> None:
        """Move a connection to those with a credential, unless it is closed already."""
        if self._remove(connection):
            connection.is_proved = True
            self._proved[connection] = None

    def unproved(self, connection: TcpConnection) -> None:
        """Move a connection back to the anonymous ones, unless it is closed already."""
        connection.is_proved = False
        if self._proved.pop(connection, self) is None:
            connection.network = connection.own_network
            self.join(connection)

    def rearrange(self, connection: TcpConnection) -> None:
        """Order an anonymous connection anew, as its requests began or ended."""
        self.recount(connection, connection.network)

    def recount(self, connection: TcpConnection, network: str) -> None:
        """Count an anonymous connection as one of another network."""
        if self._remove(connection):
            connection.network = network
            self._add(connection)
            self._hold_ceilings(connection)

    def sweep(self, now: float) -> None:
        """Close the oldest connections of each network beyond its ceiling that are no longer new."""
        left = SHED_AT_ONCE
        for network in list(self._crowded):
            group = self._networks.get(network)
            if group is None or len(group) <= self.ceilings.of_network:
                self._crowded.discard(network)
                continue
            for connection in [*group.waiting, *group.busy]:
                if len(group) <= self.ceilings.of_network or not left:
                    break
                if now - connection.anonymous_since >= GRACE_S:
                    self._shed(connection, Ceiling.ADDRESS)
                    left -= 1

    def shed_youngest(self) -> None:
        """Close the younger half of the anonymous connections, for want of memory."""
        all_ = [*self._anonymous.waiting, *self._anonymous.busy]
        all_.sort(key=lambda connection: connection.anonymous_since, reverse=True)
        for connection in all_[: min((len(all_) + 1) // 2, SHED_AT_ONCE)]:
            self._shed(connection, Ceiling.MEMORY)

    def _hold_ceilings(self, newest: TcpConnection) -> None:
        group = self._networks.get(newest.network)
        if group is not None and len(group) > self.ceilings.of_network:
            self._crowded.add(newest.network)
            self._hold(group, self.ceilings.of_network_at_once, newest, Ceiling.ADDRESS)
        self._hold(self._anonymous, self.ceilings.anonymous, newest, Ceiling.PROCESS)
        if self.is_tight:
            self._hold(self._anonymous, ANONYMOUS_WHEN_TIGHT, newest, Ceiling.MEMORY)

    def _hold(self, group: Group, most: int, newest: TcpConnection, ceiling: Ceiling) -> None:
        while len(group) > most and (oldest := group.oldest(newest)) is not None:
            self._shed(oldest, ceiling)

    def _add(self, connection: TcpConnection) -> None:
        self._anonymous.add(connection)
        if connection.network:
            self._networks.setdefault(connection.network, Group()).add(connection)

    def _remove(self, connection: TcpConnection) -> bool:
        """Remove an anonymous connection, and return whether it was there."""
        before = len(self._anonymous)
        self._anonymous.remove(connection)
        group = self._networks.get(connection.network)
        if group is not None:
            group.remove(connection)
            if not len(group):
                del self._networks[connection.network]
        return len(self._anonymous) < before

    def _shed(self, connection: TcpConnection, ceiling: Ceiling) -> None:
        self.shed[ceiling] += 1
        self.leave(connection)
        connection.is_shed = True
        connection.close()


def nothing() -> None:
    """Stand in for the protocol that is not there yet."""
