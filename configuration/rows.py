"""Where an import puts its objects: at once by their services, or in memory, to be written together in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import Any, Protocol

from audit import recording
from audit.configured import Configured
from audit.models import Change
from audit.ordered_json import is_same_record
from audit.services import change_of
from configuration.apply import put, whole
from configuration.bulk_rows import Statement
from configuration.kinds import CHANNEL, ISSUER, ROUTE, Kind
from events import services as channels
from events.models import Channel, template_of
from gateway.wire.subjects import AddressError, stored_prefix
from keys import issuers
from routes import services as routes
from routes import validation
from routes.models import Route

IMPORTED = (ISSUER, CHANNEL, ROUTE)
"""The kinds of objects that a document describes."""
Written = tuple[dict[str, Any] | None, dict[str, Any]]
"""An object before and after."""


class Rows(Protocol):
    """The objects of the configuration during an import."""

    def named(self, kind: Kind, name: str) -> Configured | None:
        """Return the object of a name; for a channel the one with the same addresses."""

    def rivals(self, route: Route) -> list[Route]:
        """Return the routes that take a call that this route would take."""

    def origins(self) -> list[str]:
        """Return the documents of all channels and routes that know one."""

    def put(self, kind: Kind, values: dict[str, Any], *, by: str) -> Written:
        """Create or update an object, without its omitted fields. Raises ValidationError."""


class SavedRows:
    """Rows that are written at once, in the current transaction."""

    def named(self, kind: Kind, name: str) -> Configured | None:
        """See :meth:`Rows.named`."""
        if kind is not CHANNEL:
            row: Configured | None = kind.find(name)
            return row
        address = self._addresses.get(_subject_of(name))
        return None if address is None else Channel.objects.get(address=address)

    @cached_property
    def _addresses(self) -> dict[str, str]:
        return {_subject_of(address): address for address in Channel.objects.values_list("address", flat=True)}

    def rivals(self, route: Route) -> list[Route]:
        """See :meth:`Rows.rivals`."""
        return validation.rivals_of(route)

    def origins(self) -> list[str]:
        """See :meth:`Rows.origins`."""
        return _origins()

    def put(self, kind: Kind, values: dict[str, Any], *, by: str) -> Written:
        """See :meth:`Rows.put`."""
        written = put(kind, values, keep=True, by=by)
        if kind is CHANNEL:
            self._addresses[_subject_of(values["address"])] = values["address"]
        return written


class GatheredRows:
    """Rows that are validated as their services do it, and kept in memory with the records of the audit log.

    Other writers do not wait meanwhile. The rows of a kind are all read once.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._by_shape: dict[str, dict[str, Route]] = {}
        self._changed: dict[tuple[str, str], tuple[Kind, Configured]] = {}
        self._changes: list[Change] = []

    @cached_property
    def _recorded_channels(self) -> frozenset[str]:
        return frozenset(Change.objects.filter(kind=CHANNEL.kind).values_list("name", flat=True))

    def named(self, kind: Kind, name: str) -> Configured | None:
        """See :meth:`Rows.named`."""
        row: Configured | None = self._all(kind).get(_subject_of(name) if kind is CHANNEL else name)
        return row

    def _all(self, kind: Kind) -> dict[str, Any]:
        """Return the rows of a kind, which are read at the first time."""
        if kind.kind not in self._rows:
            self._rows[kind.kind] = {}
            for row in kind.rows():
                self._keep(kind, row)
        return self._rows[kind.kind]

    def rivals(self, route: Route) -> list[Route]:
        """See :meth:`Rows.rivals`."""
        self._all(ROUTE)
        same_shape = self._by_shape.get(validation.shape_of(route.path), {})
        return [rival for rival in same_shape.values() if validation.are_rivals(rival, route)]

    def origins(self) -> list[str]:
        """See :meth:`Rows.origins`."""
        return _origins()

    def put(self, kind: Kind, values: dict[str, Any], *, by: str) -> Written:
        """See :meth:`Rows.put`."""
        name = values[kind.identity]
        existing = self.named(kind, name)
        if existing is None:
            row = _NEW[kind.kind](whole(kind, values), by)
            if isinstance(row, Channel):
                row.subject_prefix = self._subject_prefix(row)
        else:
            changes = {field: value for field, value in values.items() if field != kind.identity}
            row = copy(existing)
            for field, value in _CHANGED[kind.kind](existing, changes, by).items():
                setattr(row, field, value)
        self._check(kind, row)
        recorded = row.recorded()
        before = None if existing is None else existing.recorded()
        if not is_same_record(before, recorded):
            self._keep(kind, row)
            self._changed[kind.kind, name] = kind, row
            self._changes.append(change_of(kind.kind, name, before=before, after=recorded, by=by))
        return None if existing is None else existing.representation(), row.representation()

    def _check(self, kind: Kind, row: Configured) -> None:
        if isinstance(row, Channel):
            channels.check_fields(row)
        recording.check_fields(row)
        if isinstance(row, Route):
            validation.check_free(row, self.rivals(row))

    def _subject_prefix(self, channel: Channel) -> str:
        is_new = channel.address not in self._recorded_channels
        return stored_prefix(channel.stream) if is_new else channels.subject_prefix(channel)

    def _keep(self, kind: Kind, row: Any) -> None:
        name = getattr(row, kind.identity)
        rows = self._rows[kind.kind]
        if isinstance(row, Route):
            if name in rows:
                self._by_shape[rows[name].shape].pop(name)
            self._by_shape.setdefault(row.shape, {})[name] = row
        rows[_subject_of(name) if kind is CHANNEL else name] = row

    def statements(self) -> list[Statement]:
        """Return what writes the rows and the records, all prepared."""
        by_kind: dict[str, list[Configured]] = {}
        for kind, row in self._changed.values():
            by_kind.setdefault(kind.kind, []).append(row)
        rows = [
            Statement(kind.model, by_kind[kind.kind], unique=kind.identity) for kind in IMPORTED if kind.kind in by_kind
        ]
        return [*rows, Statement(Change, self._changes)] if rows else []


_NEW: Mapping[str, Callable[[dict[str, Any], str], Configured]] = {
    ISSUER.kind: lambda values, _: issuers.new_issuer(**values),
    CHANNEL.kind: lambda values, _: channels.new_channel(**values),
    ROUTE.kind: lambda values, by: routes.new_route(**values, by=by),
}
_CHANGED: Mapping[str, Callable[[Any, dict[str, Any], str], dict[str, Any]]] = {
    ISSUER.kind: lambda _, changes, __: issuers.changed_fields(changes),
    CHANNEL.kind: lambda _, changes, __: channels.changed_fields(changes),
    ROUTE.kind: lambda route, changes, by: routes.changed_fields(route, changes, by=by),
}


def _origins() -> list[str]:
    models: tuple[Any, ...] = (Channel, Route)
    return [
        name
        for model in models
        for name in model.objects.exclude(imported_from="").values_list("imported_from", flat=True)
    ]


def _subject_of(address: str) -> str:
    """Return the subject of the events of an address, or the address itself if it is invalid."""
    try:
        return template_of(address).subject
    except (AddressError, TypeError):
        return address
