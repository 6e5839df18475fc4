"""Paths with encoded slashes (``%2F``): what they are for, where the route keeps them (docs/configuration.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.matching import Match
from gateway.snapshot.paths import KEPT_SLASH, malformed, with_kept_slashes

if TYPE_CHECKING:
    from gateway.snapshot.picture import Snapshot


def match_raw(snapshot: Snapshot, protocol: Protocol, method: str, *, raw_path: bytes, path: str) -> Match:
    """Return what a request is for, by its path as received and as normalised. Raises Refused."""
    if b"%" not in raw_path or (kept := with_kept_slashes(raw_path)) == path:
        return snapshot.match(protocol, method, path)
    return _match_kept(snapshot, protocol, method, kept=kept, decoded=path)


def _match_kept(snapshot: Snapshot, protocol: Protocol, method: str, *, kept: str, decoded: str) -> Match:
    """Return what a request is for whose path has encoded slashes: they end no segment. Raises Refused.

    Some upstreams take an encoded slash for a slash. A catch-all parameter keeps it by default, so its route must be
    the one of the decoded path, too: the rights and policies of a more specific route cannot be bypassed.
    """
    try:
        match = snapshot.match(protocol, method, kept)
    except Refused as refused:
        if refused.reason is not Reason.NOT_FOUND:
            raise
        raise _refused() from None
    route = match.route
    if route is None or not route.keeps_encoded_slashes:
        raise _refused()
    if route.path.endswith("...}") and not _is_for(snapshot, protocol, method, decoded, match):
        raise _refused()
    return replace(match, parameters={name: value.replace(KEPT_SLASH, "/") for name, value in match.parameters.items()})


def _is_for(snapshot: Snapshot, protocol: Protocol, method: str, path: str, match: Match) -> bool:
    try:
        return snapshot.match(protocol, method, path).route is match.route
    except Refused:
        return False


def _refused() -> Refused:
    return malformed("holds an encoded slash")
