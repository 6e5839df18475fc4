"""Every change of routes."""

from __future__ import annotations

from typing import Any

from audit import recording
from routes import shapes
from routes.models import Route


def create_route(
    *,
    name: str,
    path: str,
    handler: dict[str, Any],
    methods: list[str] | None = None,
    protocol: str = "http",
    policies: list[dict[str, Any]] | None = None,
    reserved_override: bool = False,
    by: str,
) -> Route:
    """Make a route. Raises ValidationError."""
    route = Route(
        name=name,
        path=path,
        methods=shapes.methods(methods or [], protocol),
        protocol=protocol,
        handler=shapes.handler(handler, protocol),
        policies=shapes.policies(policies or []),
        reserved_override=reserved_override,
    )
    shapes.check_path(route)
    return recording.create("route", route, name, by=by)


def update_route(route: Route, *, by: str, **changes: Any) -> Route:
    """Change a route; live connections stay. Raises ValidationError."""
    protocol = changes.get("protocol", route.protocol)
    if "methods" in changes:
        changes["methods"] = shapes.methods(changes["methods"], protocol)
    if "handler" in changes:
        changes["handler"] = shapes.handler(changes["handler"], protocol)
    if "policies" in changes:
        changes["policies"] = shapes.policies(changes["policies"])
    changed = Route(**{**route.document(), **changes, "id": route.pk})
    shapes.check_path(changed)
    return recording.update("route", route, route.name, changes, by=by)


def delete_route(route: Route, *, by: str) -> None:
    """Delete a route."""
    recording.delete("route", route, route.name, by=by)
