"""Whether a caller may read some address that a topic filter matches: each event is checked again before it is sent."""

from __future__ import annotations

from gateway.identity.rights import allowed
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb
from gateway.wire.subjects import AddressError, meet, reading_filter


def may_read_some(principal: Principal, template: str, subjects: tuple[str, ...]) -> bool:
    """Return whether the principal may read some address of a channel that the subjects match."""
    if allowed(principal, Right(Verb.SUBSCRIBE, template)):
        return True
    if principal.ceiling is not None and not _cover_some(principal.ceiling, template, subjects):
        return False
    return _cover_some(principal.scopes, template, subjects)


def _cover_some(scopes: tuple[str, ...], template: str, subjects: tuple[str, ...]) -> bool:
    """Return whether a scope covers some address of the channel that the subjects match.

    A scope with ``*`` is compared by its literal prefix alone, and so may be counted in where it covers nothing;
    each event is checked again before it is sent.
    """
    prefix = f"{Verb.SUBSCRIBE}:"
    literal = template.partition("{")[0]
    for scope in scopes:
        address = scope.removeprefix(prefix)
        if scope == "*" or (scope.startswith(prefix) and "*" in address):
            scope_literal = "" if scope == "*" else address.partition("*")[0].partition("{")[0]
            if literal.startswith(scope_literal) or scope_literal.startswith(literal):
                return True
            continue
        try:
            scope_subject = reading_filter(address) if scope.startswith(prefix) else None
        except AddressError:
            continue
        if scope_subject is not None and any(meet(subject, scope_subject) for subject in subjects):
            return True
    return False
