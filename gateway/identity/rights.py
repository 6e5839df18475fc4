"""What a caller may do: scopes and the rights that they cover. Only scopes grant rights (docs/identity.md)."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.concurrency.short_cache import short_cache
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import MAX_S, Right, Verb, interval_of
from gateway.snapshot.scopes import CONFLATE, covers, is_covered
from gateway.wire.header_fields import Headers

_OPERATION = (b"mcp-method", b"mcp-name")
"""The headers that name an operation, for rights such as ``call:ROUTE#tools/call:get_weather``."""


def require(principal: Principal, right: Right) -> None:
    """Raise Refused ``forbidden`` if the principal lacks the right."""
    if not allowed(principal, right):
        raise forbidden(principal, right)


def forbidden(principal: Principal, right: Right) -> Refused:
    """Return the refusal that names the missing scope, and whether the key or its tier lacks it."""
    lacks = "This key lacks" if not is_covered(principal.scopes, right.text) else "This key's tier does not allow"
    return Refused(Reason.FORBIDDEN, f"{lacks} the scope `{right}`.")


def allowed(principal: Principal, right: Right) -> bool:
    """Return whether a scope of the principal covers the right, and one of its tier too."""
    ceiling = principal.ceiling
    return is_covered(principal.scopes, right.text) and (ceiling is None or is_covered(ceiling, right.text))


def may_use(principal: Principal, right: Right, made_by: str) -> bool:
    """Return whether the principal may use what its consumer holds: it has the right to it, or made it itself."""
    return made_by == principal.maker or allowed(principal, right)


def lacking(principal: Principal, rights: Iterable[Right], headers: Headers) -> Right | None:
    """Return the first right that is needed and missing, or None.

    A caller without the right to a whole route may have it to the operation that the headers name.
    """
    for right in rights:
        if not allowed(principal, right):
            operation = _operation(right, headers)
            if operation is None:
                return right
            for held in (principal.scopes, principal.ceiling):
                if held is not None and not (is_covered(held, right.text) or is_covered(held, operation.text)):
                    return operation
    return None


def _operation(right: Right, headers: Headers) -> Right | None:
    """Return the right to the operation that the headers name; None if they name none, or several."""
    if right.verb is not Verb.CALL:
        return None
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in _OPERATION:
            if name in found:
                # The upstream might read another one of them.
                return None
            found[name] = value.decode("latin-1").strip()
    method, name_ = (found.get(name, "") for name in _OPERATION)
    return Right(Verb.CALL, f"{right.name}#{method}{':' if name_ else ''}{name_}") if method else None


def conflated_s(principal: Principal, right: Right) -> float:
    """Return the interval in seconds in which the right yields only the latest event of an address; 0 for every event.

    A scope of the key or its tier sets it, as ``subscribe:trades?conflate=1s``; the shortest that covers it counts.
    """
    held = (principal.scopes, principal.ceiling)
    return max(_conflated_s(scopes, right.text) for scopes in held if scopes is not None)


@short_cache(8_192)
def _conflated_s(scopes: tuple[str, ...], wanted: str) -> float:
    covering = (scope.partition(CONFLATE) for scope in scopes)
    return min(
        (_interval_s(mark, interval) for plain, mark, interval in covering if covers(plain, wanted)),
        default=0.0,
    )


def _interval_s(mark: str, interval: str) -> float:
    """Parse an interval. An invalid one, which a token may carry, becomes the longest."""
    try:
        return interval_of(interval) if mark else 0.0
    except Refused:
        return MAX_S
