"""The gateway's own endpoints as OpenAPI operations, by handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.contracts.parameters import (
    ID,
    IDEMPOTENCY_KEY,
    INTERVAL,
    NOT_BLANK,
    POSITION,
    POSITIONS,
    TEXT,
    Parameter,
    Schema,
    whole_number,
)
from gateway.snapshot.right import Verb
from gateway.snapshot.subscriptions import State

COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}
PROBLEM = "application/problem+json"
JSON = "application/json"
STREAM = "text/event-stream"
EVENTS_JSON = "application/cloudevents+json"
BATCH_JSON = "application/cloudevents-batch+json"


def members(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object; the members named first are required."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def strict_members(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object of a request, in which unknown members are refused."""
    return {**members(*required, **properties), "additionalProperties": False}


def seconds(least: float, most: float) -> Schema:
    """Return the schema of a time in seconds."""
    return {"type": "number", "minimum": least, "maximum": most}


def list_of(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its summary, parameters, body and responses."""

    summary: str
    responses: Mapping[int, tuple[str, Mapping[str, Schema]]]
    """By status: a description, and the schemas of its bodies by media type."""
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    """Schemas by media type."""
    is_body_required: bool = True


_EVENT = members(
    "type", "channel", "id", "time",
    type={"const": "event"}, channel=TEXT, id=TEXT, time=TEXT, data=ANY, data_base64=TEXT, traceparent=TEXT,
    tracestate=TEXT, content_type={**TEXT, "description": "The media type, unless it is JSON."},
)  # fmt: skip
_LIMIT = members("name", "metric", "amount", name=TEXT, metric=TEXT, amount=SECONDS, remaining=SECONDS)
_JOB = members(
    "id", "type", "state", "statusUrl", "progress", "message",
    id=TEXT, type=TEXT, state={"enum": ["queued", "running", "completed", "failed", "cancelled"]}, statusUrl=TEXT,
    progress={"type": "number", "minimum": 0, "maximum": 1}, message=TEXT, downloadUrl=TEXT, result=ANY, error=ANY,
)  # fmt: skip
_SUBSCRIPTION = members(
    "id", "type", "channel", "state",
    id=TEXT, type={"enum": ["pull", "webhook"]}, channel=TEXT, url={"type": ["string", "null"]}, state=TEXT,
    max_in_flight=COUNT, max_attempts=COUNT, retry_schedule_s=list_of(SECONDS),
    order={"enum": ["channel", "key"]}, ack_wait_s=SECONDS, state_reason={"type": ["string", "null"]},
    lag=members("events", "seconds", events={"type": ["integer", "null"]}, seconds={"type": ["number", "null"]}),
    in_flight={"type": ["integer", "null"]}, redelivered={"type": ["integer", "null"]},
    last_error={"type": ["object", "null"]},
)  # fmt: skip
_SECRET: Schema = {**TEXT, "description": "`whsec_…`, shown only once."}
_WITH_SECRET: Schema = {**_SUBSCRIPTION, "properties": {**_SUBSCRIPTION["properties"], "secret": _SECRET}}
URL: Schema = {"type": "string", "maxLength": 2000, "pattern": "^https?://[A-Za-z0-9][!-~]*$"}
URL_OR_NONE: Schema = {"anyOf": [URL, {"enum": ["", None]}]}
_SETTINGS: Mapping[str, Schema] = {
    "type": {"enum": ["pull", "webhook"]}, "channel": NOT_BLANK, "url": URL_OR_NONE,
    "order": {"enum": ["channel", "key"]}, "max_in_flight": whole_number(1, 1000), "max_attempts": whole_number(1, 100),
    "retry_schedule_s": {"type": "array", "minItems": 1, "maxItems": 100, "items": seconds(0, 604_800)},
    "ack_wait_s": seconds(1, 43_200), "alert_url": URL_OR_NONE,
    "alert_lag_events": {**whole_number(1, 10**15), "type": ["integer", "null"]},
    "alert_lag_s": {**seconds(1, 604_800), "type": ["number", "null"]},
}  # fmt: skip
"""What a consumer sets of a subscription."""
_FIXED = ("type", "channel", "order")
_OF_WEBHOOKS: Schema = {"required": ["url"], "properties": {"url": URL}}
_OF_PULLS: Schema = {"properties": {"url": {"enum": ["", None]}, "order": {"const": "channel"}}}
_NEW_SUBSCRIPTION: Schema = {
    **strict_members("type", "channel", **_SETTINGS, **{"from": POSITION}),
    "if": {"properties": {"type": {"const": "webhook"}}},
    "then": _OF_WEBHOOKS,
    "else": _OF_PULLS,
}
_CHANGED_SUBSCRIPTION = strict_members(
    **{name: schema for name, schema in _SETTINGS.items() if name not in _FIXED},
    state={"enum": ["active", "paused"]},
)
_DELIVERY_ID: Schema = {"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,18}\.[0-9]{1,10})?$"}
_IDS = strict_members(
    "ids",
    ids={"type": "array", "minItems": 1, "maxItems": 1000, "items": _DELIVERY_ID},
    seconds={**seconds(0, 43_200), "type": ["number", "null"]},
)
_IDEMPOTENCY = {
    "Idempotency-Key": Parameter(
        "A repeated request returns the first response; one with another body is refused with 422.", IDEMPOTENCY_KEY
    )
}
_TICKET = {"ticket": Parameter("A connect ticket instead of a key.")}
_STREAM_QUERY = {
    "from": Parameter("Where to start, by default at `latest`.", POSITIONS),
    "last_event_id": Parameter("The last id received; the header `Last-Event-ID` takes precedence.", POSITIONS),
    "conflate": Parameter("Only the latest event of each address per interval, from `10ms` to `60m`.", INTERVAL),
    **_TICKET,
}
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_CLOUD_EVENT: Schema = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"}, "id": NOT_BLANK, "source": NOT_BLANK, "type": NOT_BLANK, "data": ANY,
        "data_base64": {"type": "string", "pattern": _BASE64}, "datacontenttype": TEXT,
    },
    "not": {"required": ["data", "data_base64"]},
    "propertyNames": {"pattern": "^([a-z0-9]{1,20}|data_base64)$"},
    "additionalProperties": {"type": ["string", "integer", "boolean", "null"]},
}  # fmt: skip
_EVENT_OR_EVENTS: Schema = {
    "description": "An event, or an array of events.",
    "anyOf": [
        {"type": ["object", "string", "number", "boolean", "null"]},
        {"type": "array", "minItems": 1, "maxItems": 1000},
    ],
}
_IF_NONE_MATCH = {"If-None-Match": Parameter("The `ETag` of the cached document.", TEXT)}
_ME = members(
    "consumer", "key", "tier", "scopes", "limits",
    consumer=TEXT, key=TEXT, tier=TEXT, scopes=list_of(TEXT), metadata=OBJECT, limits=list_of(_LIMIT),
    would=TEXT, n=COUNT, allowed={"type": "boolean"},
)  # fmt: skip
_PULL_LIMIT = {"limit": Parameter("By default 100.", whole_number(1, 500))}
_LIMIT_QUERY = {"limit": Parameter("By default 100.", whole_number(1, 1000))}
_PUBLISHED = {201: ("Stored.", {JSON: {"anyOf": [members("id", id=TEXT), members("ids", ids=list_of(TEXT))]}})}

OPERATIONS: Mapping[str, Operation] = {
    "stream": Operation(
        "One WebSocket for many channels; payloads are described by /v1/asyncapi.json.",
        {101: ("The connection is open.", {})},
        query=_TICKET,
    ),
    "events": Operation(
        "Events of 1 to 50 channels: those stored since a position, then live ones.",
        {200: ("Server-sent events; `data` is the payload, `id` the position.", {STREAM: TEXT})},
        query={
            "channel": Parameter(
                "Addresses or templates.",
                {"type": "array", "minItems": 1, "maxItems": 50, "items": NOT_BLANK},
                is_required=True,
            ),
            **_STREAM_QUERY,
        },
        headers={"Last-Event-ID": Parameter("The last id received.", POSITIONS)},
    ),
    "publish": Operation(
        "Publish one event or an array of events; the response is sent once they are stored.",
        _PUBLISHED,
        headers=_IDEMPOTENCY,
        body={JSON: _EVENT_OR_EVENTS, EVENTS_JSON: _CLOUD_EVENT, BATCH_JSON: list_of(_CLOUD_EVENT), "*/*": ANY},
    ),
    "history": Operation(
        "Stored events after an id, oldest first.",
        {
            200: (
                "A page; as CloudEvents if `Accept` names them, with the next page in `Link`.",
                {
                    JSON: members("results", "next", results=list_of(_EVENT), next={"type": ["string", "null"]}),
                    BATCH_JSON: list_of(OBJECT),
                },
            ),
            410: ("Events before `oldest` are no longer stored.", {PROBLEM: OBJECT}),
        },
        query={"after": Parameter("The id after which to start.", ID), **_LIMIT_QUERY},
    ),
    "ticket": Operation(
        "Create a connect ticket, for browsers that cannot set headers: for a connection, or a stream that resumes.",
        {
            201: (
                "The ticket.",
                {JSON: members("ticket", "expires_in_s", ticket=TEXT, expires_in_s=COUNT, idle_s=COUNT)},
            )
        },
        body={JSON: strict_members(resumable={"type": "boolean", "default": False})},
        is_body_required=False,
    ),
    "me": Operation(
        "The caller: consumer, tier, scopes, limits and what remains of each; and what a call would be answered.",
        {200: ("The caller.", {JSON: _ME})},
        query={
            "would": Parameter(
                "A right, such as `publish:ADDRESS`, of which to return whether its use is allowed.",
                {"type": "string", "maxLength": 1024, "pattern": f"^({'|'.join(Verb)}):."},
            ),
            "n": Parameter("How often; with `would`.", whole_number(1, 10**9)),
        },
    ),
    "asyncapi": Operation(
        "What this key may send and receive, as AsyncAPI 3.0.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("Not modified.", {})},
        query={"channel": Parameter("Only these channels.", {"type": "array", "maxItems": 50, "items": NOT_BLANK})},
        headers=_IF_NONE_MATCH,
    ),
    "openapi": Operation(
        "What this key may call, as OpenAPI 3.1.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("Not modified.", {})},
        headers=_IF_NONE_MATCH,
    ),
    "job.submit": Operation(
        "Submit a job.",
        {202: ("Accepted; `Location` is the URL of its status.", {JSON: _JOB})},
        headers=_IDEMPOTENCY,
        body={JSON: ANY},
        is_body_required=False,
    ),
    "job.status": Operation("The status of one of the caller's jobs.", {200: ("The job.", {JSON: _JOB})}),
    "job.cancel": Operation(
        "Cancel a job.", {200: ("The job has ended.", {JSON: _JOB}), 202: ("Cancellation was requested.", {JSON: _JOB})}
    ),
    "job.result": Operation(
        "The file of a signed link, which needs no other credential.",
        {200: ("The file.", {"*/*": ANY})},
        query={"expires": Parameter("From the link."), "signature": Parameter("From the link.")},
    ),
    "job.events": Operation(
        "The status of a job, whenever it changes.", {200: ("Events until the job has ended.", {STREAM: TEXT})}
    ),
    "subscription.list": Operation(
        "The caller's own durable subscriptions.",
        {200: ("All of them.", {JSON: members("results", results=list_of(_SUBSCRIPTION))})},
        query={
            "channel": Parameter("Only of this channel."),
            "state": Parameter("Only in this state.", {"enum": list(State)}),
            "type": Parameter("Only of this type.", _SETTINGS["type"]),
        },
    ),
    "subscription.create": Operation(
        "Create a durable subscription.",
        {201: ("Created.", {JSON: _WITH_SECRET})},
        headers=_IDEMPOTENCY,
        body={JSON: _NEW_SUBSCRIPTION},
    ),
    "subscription.show": Operation(
        "A durable subscription with its state.", {200: ("The subscription.", {JSON: _SUBSCRIPTION})}
    ),
    "subscription.change": Operation(
        "Change a subscription.", {200: ("Changed.", {JSON: _SUBSCRIPTION})}, body={JSON: _CHANGED_SUBSCRIPTION}
    ),
    "subscription.delete": Operation("Delete a subscription.", {204: ("Deleted.", {})}),
    "subscription.rotate": Operation(
        "Rotate the secret; the previous one remains valid for the overlap.",
        {201: ("The new secret.", {JSON: _WITH_SECRET})},
        body={JSON: strict_members(overlap_s=whole_number(0, 2_592_000))},
        is_body_required=False,
    ),
    "subscription.attempts": Operation(
        "The last delivery attempts of a webhook: request, response, duration.",
        {200: ("The attempts, the newest first.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"event": Parameter("Only of this event."), "limit": Parameter("By default 500.", whole_number(1, 500))},
    ),
    "subscription.pull": Operation(
        "Pull events that are due, each with a `delivery`.",
        {200: ("The events, possibly none.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"wait_s": Parameter("How long to wait for the first event.", seconds(0, 30)), **_PULL_LIMIT},
    ),
    "subscription.ack": Operation(
        "Acknowledge deliveries.", {200: ("Acknowledged.", {JSON: OBJECT})}, body={JSON: _IDS}
    ),
    "subscription.nack": Operation(
        "Redeliver these after a delay.", {200: ("Postponed.", {JSON: OBJECT})}, body={JSON: _IDS}
    ),
    "subscription.extend": Operation(
        "Extend the time before these are redelivered.", {200: ("Postponed.", {JSON: OBJECT})}, body={JSON: _IDS}
    ),
}


def format_operation(operation: Operation) -> dict[str, Any]:
    """Return an operation in OpenAPI's format, without its id, path parameters and refusals."""
    formatted: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {str(status): _response(*response) for status, response in operation.responses.items()},
    }
    parameters = [parameter.format(name, "query") for name, parameter in operation.query.items()]
    parameters += [parameter.format(name, "header") for name, parameter in operation.headers.items()]
    if parameters:
        formatted["parameters"] = parameters
    if operation.body:
        formatted["requestBody"] = {"required": operation.is_body_required, "content": _content(operation.body)}
    return formatted


def _response(description: str, bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {"description": description} | ({"content": _content(bodies)} if bodies else {})


def _content(bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": dict(schema)} for media_type, schema in bodies.items()}
