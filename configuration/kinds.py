"""The kinds of objects in the configuration, with their defaults and the services that write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from audit.configured import Configured
from consumers import services as consumers
from consumers.limits import WHILE_OPEN
from consumers.models import Consumer, Tier
from consumers.scopes import every_scope
from events import connectors
from events import services as events
from events.models import Channel, Connector
from gateway.credentials.sealed import Sealed
from keys import issuers
from keys.models import JwtIssuer
from routes import services as routes
from routes.models import Route
from routes.validation import clean_methods

REQUIRED: Any = object()


@dataclass(frozen=True)
class Kind:
    """One kind of object. ``fields`` has the default of each field, or ``REQUIRED``."""

    section: str
    kind: str
    model: type[Configured]
    fields: Mapping[str, Any]
    create: Callable[..., Any]
    update: Callable[..., Any]
    delete: Callable[..., Any]
    types: Mapping[str, type] = field(default_factory=dict)
    read: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Converts the fields of a document to arguments of the services."""
    brief: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Removes what is redundant from a representation."""
    sealed: Mapping[str, str] = field(default_factory=dict)
    """Where the audit log records the encrypted value of each write-only field."""

    @property
    def write_only(self) -> frozenset[str]:
        """Fields that a document may have and no export has; where they are left out, their values are kept."""
        return frozenset(self.sealed)

    def recorded(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that no document has from a record of the audit log, and the write-only ones."""
        others = {name: record.get(name, "") for name in self.model.recorded_only if name not in self.fields}
        return others | {name: Sealed(record.get(where, "")) for name, where in self.sealed.items()}

    @property
    def known_fields(self) -> tuple[str, ...]:
        """The fields that a document may have."""
        return (*self.fields, *sorted(self.write_only))

    @property
    def identity(self) -> str:
        """The field that names an object of this kind."""
        return self.model.identity

    def without_defaults(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a representation without the fields that have their defaults."""
        brief = self.brief(values)
        return {
            name: brief[name] for name, default in self.fields.items() if default is REQUIRED or brief[name] != default
        }

    def rows(self) -> list[Any]:
        """Return every object of this kind, ordered by name."""
        return list(self.model._default_manager.order_by(self.identity))

    def find(self, name: str) -> Any | None:
        """Return the object with a name, or None."""
        return self.model._default_manager.filter(**{self.identity: name}).first()


def _with_tier(values: dict[str, Any]) -> dict[str, Any]:
    tier = Tier.objects.filter(name=values["tier"]).first()
    if tier is None:
        raise ValidationError({"tier": f"There is no tier {values['tier']}."})
    return values | {"tier": tier}


def _brief_limits(values: dict[str, Any]) -> dict[str, Any]:
    defaults = {"scope": "consumer", "exceed": "reject", "mode": "enforce", "close_at": 20, "fail": "open"}

    def brief(limit: dict[str, Any]) -> dict[str, Any]:
        redundant = defaults | {"burst": limit["amount"]} | ({"per": None} if limit["metric"] in WHILE_OPEN else {})
        return {name: value for name, value in limit.items() if name not in redundant or value != redundant[name]}

    return values | {"limits": [brief(limit) for limit in values["limits"]]}


def _brief_route(values: dict[str, Any]) -> dict[str, Any]:
    brief = dict(values)
    if brief["methods"] == clean_methods([], brief["protocol"]):
        brief["methods"] = []
    defaults = {"options": {}, "mode": "enforce"}
    brief["policies"] = [
        {name: value for name, value in policy.items() if name not in defaults or value != defaults[name]}
        for policy in brief["policies"]
    ]
    return brief


TIER = Kind(
    section="tiers",
    kind="tier",
    model=Tier,
    fields={"name": REQUIRED, "description": "", "limits": [], "scopes": every_scope()},
    types={"description": str},
    create=consumers.create_tier,
    update=consumers.update_tier,
    delete=consumers.delete_tier,
    brief=_brief_limits,
)
CONSUMER = Kind(
    section="consumers",
    kind="consumer",
    model=Consumer,
    fields={
        "name": REQUIRED,
        "display_name": "",
        "email": "",
        "tier": REQUIRED,
        "limits": [],
        "metadata": {},
        "is_active": True,
    },
    types={"display_name": str, "email": str, "tier": str, "is_active": bool},
    create=consumers.create_consumer,
    update=consumers.update_consumer,
    delete=consumers.delete_consumer,
    read=_with_tier,
    brief=_brief_limits,
)
CHANNEL = Kind(
    section="channels",
    kind="channel",
    model=Channel,
    fields={
        "address": REQUIRED,
        "title": "",
        "content_type": "json",
        "schema": None,
        "on_invalid": "reject",
        "retention": {},
        "protocols": [],
        "parameters": {},
    },
    types={"title": str, "content_type": str, "on_invalid": str},
    create=events.create_channel,
    update=events.update_channel,
    delete=events.delete_channel,
)
ROUTE = Kind(
    section="routes",
    kind="route",
    model=Route,
    fields={
        "name": REQUIRED,
        "path": REQUIRED,
        "methods": [],
        "protocol": "http",
        "handler": REQUIRED,
        "policies": [],
        "reserved_override": False,
        "timeouts": {},
        "preserve_host": False,
        "rewrite_location": True,
        "encoded_slashes": "",
        "upstream_authorization": "drop",
        "idempotency": False,
        "compression": False,
    },
    types={
        "path": str,
        "protocol": str,
        "reserved_override": bool,
        "preserve_host": bool,
        "rewrite_location": bool,
        "encoded_slashes": str,
        "upstream_authorization": str,
        "idempotency": bool,
        "compression": bool,
    },
    create=routes.create_route,
    update=routes.update_route,
    delete=routes.delete_route,
    brief=_brief_route,
    sealed={routes.CREDENTIAL: "sealed_credential"},
)
ISSUER = Kind(
    section="issuers",
    kind="issuer",
    model=JwtIssuer,
    fields={
        "name": REQUIRED,
        "issuer": REQUIRED,
        "jwks_url": REQUIRED,
        "audience": REQUIRED,
        "algorithms": ["RS256"],
        "consumer_claim": "sub",
    },
    types={"issuer": str, "jwks_url": str, "audience": str, "consumer_claim": str},
    create=issuers.create_issuer,
    update=issuers.update_issuer,
    delete=issuers.delete_issuer,
)
CONNECTOR = Kind(
    section="connectors",
    kind="connector",
    model=Connector,
    fields={
        "name": REQUIRED,
        "type": REQUIRED,
        "direction": REQUIRED,
        "channel": REQUIRED,
        "options": {},
        "address": "",
        "start": "latest",
        "is_active": True,
    },
    types={"type": str, "direction": str, "channel": str, "address": str, "start": str, "is_active": bool},
    create=connectors.create_connector,
    update=connectors.update_connector,
    delete=connectors.delete_connector,
)
KINDS = (TIER, CONSUMER, CHANNEL, ROUTE, ISSUER, CONNECTOR)
"""In the order of their dependencies, which is also that of an exported document."""
