"""Create, update and delete routes."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from audit import recording
from audit.locks import lock_configuration
from gateway.credentials.sealed import Sealed
from routes import validation
from routes.forwarding import sealed
from routes.hook_rights import check_hooks
from routes.models import Route

CREDENTIAL = "upstream_credential"
FIELDS = (
    "path", "methods", "protocol", "handler", "policies", "reserved_override", "timeouts", "preserve_host",
    "rewrite_location", "encoded_slashes", "upstream_authorization", "idempotency", "compression",
    "imported_from", CREDENTIAL,
)  # fmt: skip


def create_route(*, by: str, **fields: Any) -> Route:
    """Create a route with the fields of :func:`new_route`. Raises ValidationError."""
    route = new_route(**fields, by=by)
    with transaction.atomic():
        lock_configuration()
        validation.check_free(route, validation.rivals_of(route))
        return recording.create("route", route, route.name, by=by)


def new_route(
    *,
    name: str,
    path: str,
    handler: dict[str, Any],
    methods: list[str] | None = None,
    protocol: str = "http",
    policies: list[dict[str, Any]] | None = None,
    reserved_override: bool = False,
    timeouts: dict[str, float] | None = None,
    preserve_host: bool = False,
    rewrite_location: bool = True,
    encoded_slashes: str = "",
    upstream_authorization: str = "drop",
    upstream_credential: dict[str, str] | Sealed | None = None,
    idempotency: bool = False,
    compression: bool = False,
    imported_from: str = "",
    by: str,
) -> Route:
    """Return a valid route that is not saved; naming a hook needs the right for it. Raises ValidationError.

    Whether another route has its path already is left to the caller.
    """
    check_hooks([], policies, by=by)
    route = Route(
        name=name,
        path=path,
        methods=[] if methods is None else methods,
        protocol=protocol,
        handler=handler,
        policies=[] if policies is None else policies,
        reserved_override=reserved_override,
        timeouts={} if timeouts is None else timeouts,
        preserve_host=preserve_host,
        rewrite_location=rewrite_location,
        encoded_slashes=encoded_slashes,
        upstream_authorization=upstream_authorization,
        idempotency=idempotency,
        compression=compression,
        imported_from=imported_from,
    )
    route.sealed_credential = sealed(route, upstream_credential)
    validation.clean_route(route)
    return route


def update_route(route: Route, *, by: str, **changes: Any) -> Route:
    """Update a route; its open connections are kept. Raises ValidationError.

    A change of the protocol alone resets the methods to the defaults of the new protocol. An author without the right
    to name hooks may change everything but the hooks.
    """
    _check_names(changes)
    if "policies" in changes:
        check_hooks(route.policies, changes["policies"], by=by)
        # Importing the module of a function may take long: do it before others wait for the lock.
        changes["policies"] = validation.clean_policies(changes["policies"])
    with transaction.atomic():
        lock_configuration()
        recording.lock(route, route.name)
        cleaned = changed_fields(route, changes, by=by)
        changed = Route(pk=route.pk, **(route.document() | cleaned))
        validation.check_free(changed, validation.rivals_of(changed))
        return recording.update("route", route, route.name, cleaned, by=by)


def changed_fields(route: Route, changes: dict[str, Any], *, by: str) -> dict[str, Any]:
    """Return the valid values of the fields of a route that change. Raises ValidationError.

    Whether another route has its path already is left to the caller.
    """
    _check_names(changes)
    check_hooks(route.policies, changes.get("policies", route.policies), by=by)
    changes = dict(changes)
    if CREDENTIAL in changes:
        changes["sealed_credential"] = sealed(route, changes.pop(CREDENTIAL))
    if changes.get("protocol", route.protocol) != route.protocol:
        changes.setdefault("methods", [])
    changed = Route(pk=route.pk, **(route.document() | changes))
    validation.clean_route(changed)
    return {field: getattr(changed, field) for field in (*changes, "shape")}


def _check_names(changes: dict[str, Any]) -> None:
    for field in changes:
        if field == "name":
            raise ValidationError({field: "Cannot be changed; create another one."})
        if field not in FIELDS:
            raise ValidationError({field: f"Unknown field; these can be changed: {', '.join(FIELDS)}."})


def delete_route(route: Route, *, by: str) -> None:
    """Delete a route. Raises ValidationError if it was deleted already."""
    with transaction.atomic():
        lock_configuration()
        recording.delete("route", route, route.name, by=by)
