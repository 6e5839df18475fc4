"""The bodies of requests in the OpenAPI document: what their channel, policy or job type takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.contracts.operations import ANY, JSON
from gateway.contracts.schemas import is_openapi_schema, rebase
from gateway.contracts.view import View
from gateway.schemas.checker import compile_schema
from gateway.schemas.errors import InvalidSchema
from gateway.snapshot.documents import Channel, Route
from gateway.snapshot.right import Verb
from gateway.wire.content_types import JSON as CHANNEL_JSON

WITH_A_BODY = frozenset({"POST", "PUT", "PATCH"})
WITHOUT_A_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
"""Methods whose requests usually have no body. Those of other methods, such as QUERY, may have one."""


def body_of_route(
    view: View, route: Route, method: str, schemas: dict[str, Any], *, is_forwarded: bool
) -> dict[str, Any] | None:
    """Return the body that a route takes, and add its schema to ``schemas``; None if the operation says it all."""
    policed = validated(route, "schema")
    if route.handler.get("type") == "job" and policed is None:
        return body_of_job(view, (route.handler.get("job_type", ""),), schemas)
    if method in WITHOUT_A_BODY:
        return None
    channel = _channel_of(view, route) if method == "POST" else None
    schema = channel.schema if channel is not None else policed
    if schema is not None:
        content = {JSON: {"schema": placed(schema, f"{route.name}-body", schemas)}}
        return {"required": method in WITH_A_BODY, "content": content}
    if channel is not None and channel.content_type != CHANNEL_JSON:
        return {"required": True, "content": {channel.media_type: {}}}
    return {"content": {"*/*": {}}} if is_forwarded else None


def body_of_job(view: View, types: Iterable[str], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the body that submits a job of one of these types. Without a body, the input is an empty object."""
    inputs = {type_: view.inputs[type_] for type_ in types if type_ in view.inputs}
    described = [placed(schema, f"{type_}-input", schemas) for type_, schema in inputs.items()]
    schema = {"anyOf": described} if len(described) > 1 else described[0] if described else ANY
    is_required = bool(inputs) and not any(map(_takes_nothing, inputs.values()))
    return {"required": is_required, "content": {JSON: {"schema": schema}}}


def job_types(view: View) -> list[str]:
    """Return the types whose jobs the key may submit by name."""
    return [type_ for type_ in sorted(view.inputs) if view.may(Verb.JOBS, type_)]


def validated(route: Route, option: str) -> Mapping[str, Any] | None:
    """Return the schema in an option of a route's policy `validate`, if the policy is enforced."""
    for policy in route.policies:
        schema = policy.options.get(option)
        if policy.type == "validate" and policy.mode == "enforce" and isinstance(schema, Mapping):
            return schema
    return None


def placed(schema: Mapping[str, Any], name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Add a schema to the document and return a reference to it; an empty schema if it cannot be embedded."""
    place = f"#/components/schemas/{name}"
    embedded = rebase(schema, place)
    if embedded is None or not is_openapi_schema(embedded):
        return {}
    schemas[name] = embedded
    return {"$ref": place}


def _channel_of(view: View, route: Route) -> Channel | None:
    """Return the channel that a route publishes to or reads from, if it has no parameters."""
    if route.handler.get("type") != "channel":
        return None
    address = route.handler.get("channel")
    return next((channel for channel in view.channels if channel.address == address), None)


def _takes_nothing(schema: Mapping[str, Any]) -> bool:
    try:
        return compile_schema(schema).is_valid({})
    except InvalidSchema:
        return True
