"""For operators' functions: what they are given of a call, and what they may answer (docs/policies.md).

This is an interface: names here stay as they are. A function is named ``module:name`` in the options of the policies
``custom`` and ``rate-limit``; it may be plain or ``async``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from gateway.refusals import TABLE, Reason, Refused
from gateway.wire.header_fields import NAME, OF_THE_CONNECTION, VALUE
from gateway.wire.strict_json import dump, parse

__all__ = ["DROP", "Answer", "Call", "Headers", "Message", "Principal", "Refuse", "Request"]


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP = _Drop()
"""What a function of messages returns for one that is not to go on."""


class Headers(MutableMapping[str, str]):
    """Headers by name, whatever its case. Setting one replaces all of that name; ``all`` gives each value."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]] = (), hidden: frozenset[bytes] = frozenset()) -> None:
        self._values: dict[str, list[str]] = {}
        self.changed: set[str] = set()
        for name, value in headers:
            if name not in hidden:
                self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def all(self, name: str) -> list[str]:
        """Give every value of that name."""
        return list(self._values.get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][0]

    def __setitem__(self, name: str, value: str) -> None:
        """Set a header. Raises ValueError for a name or value that cannot be sent, or is the gateway's own."""
        if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in OF_THE_CONNECTION:
            raise ValueError(f"the header {name!r} cannot be set")
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            raise ValueError(f"the header {name} cannot have this value")
        self._values[name.lower()] = [value]
        self.changed.add(name.lower())

    def __delitem__(self, name: str) -> None:
        if name.lower() in OF_THE_CONNECTION:
            raise ValueError(f"the header {name!r} cannot be removed")
        del self._values[name.lower()]
        self.changed.add(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def encoded(self) -> list[tuple[bytes, bytes]]:
        """Give them as they are sent."""
        return [(name.encode(), value.encode("latin-1")) for name, values in self._values.items() for value in values]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as the key or token proved."""

    consumer: str
    key: str
    tier: str
    scopes: tuple[str, ...]
    metadata: Mapping[str, Any]
    """That of the consumer, with that of the key on top; read it, do not change it."""
    claims: Mapping[str, Any]
    """What a token claims; nothing for a key."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in: what is known of it, without its credential."""

    principal: Principal
    route: str
    """The route's name."""
    protocol: str
    """``http``, ``sse`` or ``websocket``."""
    method: str
    path: str
    parameters: Mapping[str, str]
    """What the parameters of the route's path matched."""
    query: str
    """The query string as it came, without a ticket."""
    ip: str
    origin: str | None
    headers: Headers


class _WithBody:
    body: bytes | None

    @property
    def json(self) -> Any:
        """What the body says. Raises ValueError where it is not JSON; assigning replaces it."""
        if self.body is None:
            raise ValueError("the body is not here: the option `body` asks for it")
        return _parsed(self.body)

    @json.setter
    def json(self, value: Any) -> None:
        self.body = dump(value)


@dataclass
class Request(_WithBody):
    """A request on its way in. What is changed of its headers and body goes on changed."""

    headers: Headers
    body: bytes | None = None
    """All of it where the option ``body`` is true; else None, and it streams by."""


@dataclass
class Answer(_WithBody):
    """An answer: of the upstream on its way out, or one that a function gives instead.

    ``body`` may be bytes, a text, or what can be written as JSON.
    """

    status: int = 200
    body: Any = None
    headers: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            given, self.headers = dict(self.headers), Headers()
            self.headers.update(given)
        if isinstance(self.status, bool) or not isinstance(self.status, int) or not 200 <= self.status <= 599:
            raise ValueError("a status is a number from 200 to 599")
        if isinstance(self.body, str):
            self.body = self.body.encode()
            self.headers.setdefault("content-type", "text/plain; charset=utf-8")
        elif self.body is not None and not isinstance(self.body, bytes):
            self.body = dump(self.body)
            self.headers.setdefault("content-type", "application/json")


@dataclass
class Message:
    """A message of a socket, or the data of an event. What is changed of it goes on changed."""

    data: str | bytes
    direction: str
    """``in``: from the caller; ``out``: to the caller."""

    @property
    def json(self) -> Any:
        """What it says. Raises ValueError where it is not JSON; assigning replaces it."""
        return _parsed(self.data)

    @json.setter
    def json(self, value: Any) -> None:
        self.data = dump(value).decode()


class Refuse(Exception):
    """No: returned or raised. ``reason`` is one of docs/refusals.md, which says the status and the close code."""

    def __init__(self, reason: str = "forbidden", detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        if reason not in TABLE:
            raise ValueError(f"{reason!r} is none of {', '.join(Reason)}")
        if retry_after_s is not None and not 0 <= retry_after_s <= 366 * 24 * 3600:
            raise ValueError("retry_after_s is a number of seconds")
        self.reason = Reason(reason)
        self.detail = str(detail)[:1000]
        self.retry_after_s = retry_after_s


def _parsed(data: bytes | str) -> Any:
    try:
        return parse(data)
    except Refused as refused:
        raise ValueError(refused.detail) from None


def written(value: Any) -> bytes | None:
    """Write what a function left as a body: bytes, text, or JSON. Raises TypeError and ValueError."""
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else dump(value)
