"""How paths of an upstream correspond to those of its route: they end the same, and begin differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.snapshot.paths import PARAMETER, encoded

Pieces = tuple[tuple[str, str], ...]
"""A path in pieces of text, each with the name of the parameter that follows it; "" after the last."""


def pieces_of(template: str) -> Pieces:
    """Parse a path with parameters."""
    split = PARAMETER.split(template)
    return tuple(zip(split[::2], [*split[1::2], ""], strict=True))


def filled(pieces: Pieces, parameters: Mapping[str, str]) -> str:
    """Return the path with the values of its parameters, percent-encoded."""
    return "".join([text + encoded(parameters[name]) if name else text for text, name in pieces])


@dataclass(frozen=True, slots=True)
class PathMap:
    """The beginnings of a route's path and of its upstream's, such as ``/app`` and ``/base``, in pieces."""

    public: Pieces
    upstream: Pieces

    @classmethod
    def of(cls, public_path: str, upstream_path: str) -> PathMap:
        """Return what is left of both paths without the segments at their end that are equal."""
        public, upstream = _segments(public_path), _segments(upstream_path)
        while public and upstream and public[-1] == upstream[-1]:
            public.pop()
            upstream.pop()
        return cls(_beginning(public), _beginning(upstream))

    @property
    def constant_prefix(self) -> str | None:
        """What each caller's path begins with, if no parameter is part of it."""
        return self.public[0][0] if len(self.public) == 1 else None

    def for_call(self, parameters: Mapping[str, str], outer_prefix: str = "") -> tuple[str, str]:
        """Return what a path begins with for the caller, after the prefix of a proxy in front, and for the upstream."""
        return outer_prefix + filled(self.public, parameters), filled(self.upstream, parameters)


def _segments(path: str) -> list[str]:
    return path.replace("...}", "}").split("/")[1:]


def _beginning(segments: list[str]) -> Pieces:
    return pieces_of("".join(f"/{segment}" for segment in segments).rstrip("/"))


def to_public(path: str, public: str, upstream: str) -> str:
    """Return the caller's path for one of the upstream; as it is if it lies elsewhere, or is the caller's already.

    An upstream that follows ``X-Forwarded-Prefix`` names the caller's path itself.
    """
    if public == upstream or not is_under(path, upstream) or (not upstream and is_under(path, public)):
        return path
    return public + path[len(upstream) :] or "/"


def is_under(path: str, beginning: str) -> bool:
    """Return whether a path begins with these segments."""
    return path.startswith(beginning) and path[len(beginning) : len(beginning) + 1] in ("", "/")
