"""What hooks receive and what they may return (docs/policies.md).

These names are a stable interface. A hook is named as ``module:name`` in the options of the policies ``custom`` and
``rate-limit``; it may be plain or ``async``.
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
"""Returned by a hook for a message that is not to be passed on."""


class Headers(MutableMapping[str, str]):
    """A case-insensitive mapping of headers. Setting one replaces all values of that name; ``all`` returns each."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]] = (), hidden: frozenset[bytes] = frozenset()) -> None:
        self._values: dict[str, list[str]] = {}
        self.changed: set[str] = set()
        for name, value in headers:
            if name not in hidden:
                self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def all(self, name: str) -> list[str]:
        """Return every value of that name."""
        return list(self._values.get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][0]

    def __setitem__(self, name: str, value: str) -> None:
        """Set a header. Raises ValueError for an invalid or reserved name, and for an invalid value."""
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
        """Return the headers as ASGI has them."""
        return [(name.encode(), value.encode("latin-1")) for name, values in self._values.items() for value in values]


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller."""

    consumer: str
    key: str
    tier: str
    scopes: tuple[str, ...]
    metadata: Mapping[str, Any]
    """That of the consumer, overridden by that of the key. Read-only."""
    claims: Mapping[str, Any]
    """The claims of a token; empty for a key."""


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated call, without its credential."""

    principal: Principal
    route: str
    """The route's name."""
    protocol: str
    """``http``, ``sse`` or ``websocket``."""
    method: str
    path: str
    parameters: Mapping[str, str]
    """The values of the route's path parameters."""
    query: str
    """The query string as received, without a ticket."""
    ip: str
    origin: str | None
    headers: Headers


class _WithBody:
    body: bytes | None

    @property
    def json(self) -> Any:
        """The parsed body. Raises ValueError where it is not JSON; assigning replaces the body."""
        if self.body is None:
            raise ValueError("there is no body: set the option `body` of the policy to read it")
        return _parsed(self.body)

    @json.setter
    def json(self, value: Any) -> None:
        self.body = dump(value)


@dataclass
class Request(_WithBody):
    """A request on its way in. Changes to its headers and body take effect."""

    headers: Headers
    body: bytes | None = None
    """The whole body with the option ``body``; else None, and the body is streamed past."""


@dataclass
class Answer(_WithBody):
    """An answer of the upstream on its way out, or one that a hook returns instead.

    ``body`` may be bytes, a string, or anything that can be written as JSON.
    """

    status: int = 200
    body: Any = None
    headers: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.headers, Headers):
            fields, self.headers = dict(self.headers), Headers()
            self.headers.update(fields)
        if isinstance(self.status, bool) or not isinstance(self.status, int) or not 200 <= self.status <= 599:
            raise ValueError("a status must be a number from 200 to 599")
        if isinstance(self.body, str):
            self.body = self.body.encode()
            self.headers.setdefault("content-type", "text/plain; charset=utf-8")
        elif self.body is not None and not isinstance(self.body, bytes):
            self.body = dump(self.body)
            self.headers.setdefault("content-type", "application/json")


@dataclass
class Message:
    """A message of a WebSocket, or the data of an event. Changes to it take effect."""

    data: str | bytes
    direction: str
    """``in``: from the caller; ``out``: to the caller."""

    @property
    def json(self) -> Any:
        """The parsed message. Raises ValueError where it is not JSON; assigning replaces the message."""
        return _parsed(self.data)

    @json.setter
    def json(self, value: Any) -> None:
        self.data = dump(value).decode()


class Refuse(Exception):
    """A refusal, returned or raised. ``reason`` is one of docs/refusals.md, which sets the status and close code."""

    def __init__(self, reason: str = "forbidden", detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        if reason not in TABLE:
            raise ValueError(f"{reason!r} is not one of {', '.join(Reason)}")
        if retry_after_s is not None and not 0 <= retry_after_s <= 366 * 24 * 3600:
            raise ValueError("retry_after_s must be a number of seconds, at most a year")
        self.reason = Reason(reason)
        self.detail = str(detail)[:1000]
        self.retry_after_s = retry_after_s


def _parsed(data: bytes | str) -> Any:
    try:
        return parse(data)
    except Refused as refused:
        raise ValueError(refused.detail) from None


def encode_body(value: Any) -> bytes | None:
    """Encode what a hook set as a body: bytes, text, or JSON. Raises TypeError and ValueError."""
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else dump(value)
