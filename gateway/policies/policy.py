"""What every policy is: something done to a call on its way in, to its answer on the way out, or to its messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.refusals import Refused
from gateway.wire.header_fields import NAME, OF_THE_CONNECTION, VALUE, Headers

if TYPE_CHECKING:
    from gateway.plane import Plane


class BadOption(ValueError):
    """An option that does not fit; ``at`` is its path within the options."""

    def __init__(self, at: str, message: str) -> None:
        super().__init__(message)
        self.at = at


class Wants(Enum):
    """How much of an answer a policy has to see."""

    NOTHING = 0
    HEAD = 1
    WHOLE = 2


@dataclass(slots=True)
class Answered:
    """An answer on its way to the caller. ``body`` is None where the policy did not ask to see it."""

    status: int
    headers: Headers
    body: bytes | None = None


class Policy:
    """Does nothing; a policy overrides what it is for. What it leaves as it is costs the route nothing."""

    type = ""
    is_shadow = False
    """It changes and refuses nothing: what it does is done to a copy, and told."""
    reads_answers = False
    """It reads the bodies of answers: upstreams are asked for them whole and without encoding."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ())

    def inbound(self, call: Call) -> None:
        """Look at the call, or change it, before it is handled. Raises Refused."""

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Do as :meth:`inbound`, where that has to wait: for the body, or for a function. May answer by itself."""
        return None

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Give the headers of the answer as they are to be sent; of refusals too."""
        return headers

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """Say how much of this answer :meth:`answer` has to see."""
        return Wants.NOTHING

    async def answer(self, plane: Plane, call: Call, answered: Answered) -> None:
        """Look at an answer that its handler gave, or change it. Raises Refused."""

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Give a message of the caller as it is to go on; None drops it. Raises Refused."""
        return message

    async def message_out(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Give a message to the caller as it is to go on; None drops it. Raises Refused."""
        return message

    def has(self, part: str) -> bool:
        """Say whether it does anything in the method of that name."""
        return getattr(type(self), part) is not getattr(Policy, part)


class Broken(Policy):
    """Stands where a policy could not be made: nothing passes that it might have refused."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused

    def inbound(self, call: Call) -> None:
        """Refuse every call."""
        raise self._refused


def only(options: Mapping[str, Any], known: Iterable[str], at: str = "") -> None:
    """Raise BadOption for an option that the policy does not have."""
    names = list(known)
    for name in options:
        if name not in names:
            there_are = f"there are {', '.join(names)}." if names else "there are none."
            raise BadOption(f"{at}{name}", f"Unknown option; {there_are}")


def texts(options: Mapping[str, Any], name: str) -> list[str]:
    """Read a list of texts. Raises BadOption."""
    values = options.get(name, [])
    if not isinstance(values, list):
        raise BadOption(name, "A list of texts.")
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise BadOption(f"{name}[{number}]", "A text.")
    return values


def one_of(options: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    """Read one of a few words. Raises BadOption."""
    value = options.get(name, default)
    if value not in allowed:
        raise BadOption(name, f"Must be one of {', '.join(allowed)}.")
    return str(value)


def checked_name(name: Any, at: str) -> bytes:
    """Give the name of a header that a policy may touch, as ASGI gives it. Raises BadOption."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadOption(at, "No header has this name.")
    if name.lower() in OF_THE_CONNECTION:
        raise BadOption(at, f"`{name}` is the gateway's own.")
    return name.lower().encode()


def checked_value(value: Any, at: str) -> bytes:
    """Give the value of a header. Raises BadOption."""
    if not isinstance(value, str) or not VALUE.fullmatch(value):
        raise BadOption(at, "A header's value is a text without line breaks.")
    return value.encode("latin-1")
