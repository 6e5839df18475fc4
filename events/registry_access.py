"""What a caller of the data plane may read and change in the schema registry (docs/schemas.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from functools import cached_property
from typing import Any

from events.models import Channel
from events.registry import GLOBAL
from gateway.contracts.rights import may
from gateway.identity.rights import allowed, forbidden
from gateway.refusals import Reason, Refused
from gateway.schemas.registered import subject_named
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb

READING = (Verb.SUBSCRIBE, Verb.PUBLISH)


class Need(Enum):
    """What a request needs on the subject that its path names."""

    NOTHING = auto()
    """Its answer is the same for every caller, or contains only what the caller may read."""
    READ = auto()
    WRITE = auto()


class Access:
    """The rights of one caller in the registry.

    A subject is read with the right to subscribe or to publish, under its name or on a channel that it is the schema
    of; it is changed with the right to publish under its name.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        ceiling = fields["ceiling"]
        self._caller = Principal(
            "", "", "", scopes=tuple(fields["scopes"]), ceiling=None if ceiling is None else tuple(ceiling)
        )

    def may_read(self, subject: str) -> bool:
        """Return whether the caller may read a subject."""
        return self._has_right(READING, subject) or subject in self._subjects_of_channels

    def require(self, need: Need, subject: str) -> None:
        """Raise Refused ``forbidden`` unless the caller has the right, whether the subject exists or not.

        No caller of the data plane changes the defaults of all subjects (:data:`GLOBAL`).
        """
        if need is Need.WRITE and subject == GLOBAL:
            raise Refused(Reason.FORBIDDEN, "The defaults of all subjects are set by operators.")
        if need is Need.READ and not self.may_read(subject):
            raise forbidden(self._caller, Right(Verb.SUBSCRIBE, subject))
        if need is Need.WRITE and not self._has_right((Verb.PUBLISH,), subject):
            raise forbidden(self._caller, Right(Verb.PUBLISH, subject))

    def _has_right(self, verbs: tuple[Verb, ...], subject: str) -> bool:
        return any(allowed(self._caller, Right(verb, subject)) for verb in verbs)

    @cached_property
    def _subjects_of_channels(self) -> frozenset[str]:
        """The subjects by which channels that the caller may use validate their events."""
        named = ((channel.address, subject_named(channel.schema)) for channel in Channel.objects.exclude(schema=None))
        return frozenset(
            subject
            for address, subject in named
            if subject and any(may(self._caller, verb, address) for verb in READING)
        )
