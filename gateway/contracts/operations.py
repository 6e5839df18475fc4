"""The gateway's own endpoints as OpenAPI operations, by handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
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


def list_of(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its summary, parameters, body and responses."""

    summary: str
    responses: Mapping[int, tuple[str, Mapping[str, Schema]]]
    """By status: a description, and the schemas of its bodies by media type."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    """Schemas by media type."""
    is_body_required: bool = True


_EVENT = members(
    "type", "channel", "id", "time",
    type={"const": "event"}, channel=TEXT, id=TEXT, time=TEXT, data=ANY, traceparent=TEXT, data_base64=TEXT,
    content_type={**TEXT, "description": "The media type, unless it is JSON."},
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
_NEW_SUBSCRIPTION = members(
    "type", "channel",
    type={"enum": ["pull", "webhook"]}, channel=TEXT, url=TEXT, order=TEXT, max_in_flight=COUNT, max_attempts=COUNT,
    retry_schedule_s=list_of(SECONDS), ack_wait_s=SECONDS, alert_url=TEXT, alert_lag_events=COUNT, alert_lag_s=SECONDS,
    **{"from": TEXT},
)  # fmt: skip
_IDS = members("ids", ids=list_of(TEXT), seconds=SECONDS)
_IDEMPOTENCY_KEY = {
    "Idempotency-Key": "A repeated request returns the first response; one with another body is refused with 422."
}
_STREAM_QUERY = {
    "from": "`earliest`, `latest` (default), an id or an RFC 3339 instant.",
    "last_event_id": "The last id received; the header `Last-Event-ID` takes precedence.",
    "conflate": "An interval such as `1s`: only the latest event of each address per interval.",
    "ticket": "A connect ticket instead of a key.",
}
_PUBLISHED = {201: ("Stored.", {JSON: {"anyOf": [members("id", id=TEXT), members("ids", ids=list_of(TEXT))]}})}

OPERATIONS: Mapping[str, Operation] = {
    "stream": Operation(
        "One WebSocket for many channels; payloads are described by /v1/asyncapi.json.",
        {101: ("The connection is open.", {})},
        query={"ticket": _STREAM_QUERY["ticket"]},
    ),
    "events": Operation(
        "Events of 1 to 50 channels: those stored since a position, then live ones.",
        {200: ("Server-sent events; `data` is the payload, `id` the position.", {STREAM: TEXT})},
        query={"channel": "An address or template; may be repeated.", **_STREAM_QUERY},
        headers={"Last-Event-ID": "The last id received."},
    ),
    "publish": Operation(
        "Publish one event or an array of events; the response is sent once they are stored.",
        _PUBLISHED,
        headers=_IDEMPOTENCY_KEY,
        body={JSON: ANY, EVENTS_JSON: OBJECT, BATCH_JSON: list_of(OBJECT), "*/*": ANY},
    ),
    "history": Operation(
        "Stored events after an id, oldest first.",
        {
            200: (
                "A page.",
                {JSON: members("results", "next", results=list_of(_EVENT), next={"type": ["string", "null"]})},
            ),
            410: ("Events before `oldest` are no longer stored.", {PROBLEM: OBJECT}),
        },
        query={"after": "The id after which to start.", "limit": "1 to 1000, by default 100."},
    ),
    "ticket": Operation(
        "Create a connect ticket, for browsers that cannot set headers: for a connection, or a stream that resumes.",
        {
            201: (
                "The ticket.",
                {JSON: members("ticket", "expires_in_s", ticket=TEXT, expires_in_s=COUNT, idle_s=COUNT)},
            )
        },
        body={JSON: members(resumable={"type": "boolean", "default": False})},
        is_body_required=False,
    ),
    "me": Operation(
        "The caller: consumer, tier, scopes, limits and what remains of each.",
        {
            200: (
                "The caller.",
                {
                    JSON: members(
                        "consumer",
                        "key",
                        "tier",
                        "scopes",
                        "limits",
                        consumer=TEXT,
                        key=TEXT,
                        tier=TEXT,
                        scopes=list_of(TEXT),
                        metadata=OBJECT,
                        limits=list_of(_LIMIT),
                    )
                },
            )
        },
    ),
    "asyncapi": Operation(
        "What this key may send and receive, as AsyncAPI 3.0.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("Not modified.", {})},
        query={"channel": "Only these channels; may be repeated up to 50 times."},
        headers={"If-None-Match": "The `ETag` of the cached document."},
    ),
    "openapi": Operation(
        "What this key may call, as OpenAPI 3.1.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("Not modified.", {})},
        headers={"If-None-Match": "The `ETag` of the cached document."},
    ),
    "job.submit": Operation(
        "Submit a job.",
        {202: ("Accepted; `Location` is the URL of its status.", {JSON: _JOB})},
        headers=_IDEMPOTENCY_KEY,
        body={JSON: ANY},
        is_body_required=False,
    ),
    "job.status": Operation("The status of one of the caller's jobs.", {200: ("The job.", {JSON: _JOB})}),
    "job.cancel": Operation(
        "Cancel a job.", {200: ("The job has ended.", {JSON: _JOB}), 202: ("Cancellation was requested.", {JSON: _JOB})}
    ),
    "job.result": Operation(
        "The file of a signed link, which needs no other credential.",
        {200: ("The file.", {"application/octet-stream": ANY})},
        query={"expires": "From the link.", "signature": "From the link."},
    ),
    "job.events": Operation(
        "The status of a job, whenever it changes.", {200: ("Events until the job has ended.", {STREAM: TEXT})}
    ),
    "subscription.list": Operation(
        "The caller's own durable subscriptions.",
        {200: ("All of them.", {JSON: members("results", results=list_of(_SUBSCRIPTION))})},
        query={"channel": "Only of this channel.", "state": "Only in this state.", "type": "`pull` or `webhook`."},
    ),
    "subscription.create": Operation(
        "Create a durable subscription.",
        {201: ("Created.", {JSON: _WITH_SECRET})},
        headers=_IDEMPOTENCY_KEY,
        body={JSON: _NEW_SUBSCRIPTION},
    ),
    "subscription.show": Operation(
        "A durable subscription with its state.", {200: ("The subscription.", {JSON: _SUBSCRIPTION})}
    ),
    "subscription.change": Operation(
        "Change a subscription.", {200: ("Changed.", {JSON: _SUBSCRIPTION})}, body={JSON: OBJECT}
    ),
    "subscription.delete": Operation("Delete a subscription.", {204: ("Deleted.", {})}),
    "subscription.rotate": Operation(
        "Rotate the secret; the previous one remains valid for the overlap.",
        {201: ("The new secret.", {JSON: _WITH_SECRET})},
        body={JSON: members(overlap_s=SECONDS)},
    ),
    "subscription.attempts": Operation(
        "The last delivery attempts of a webhook: request, response, duration.",
        {200: ("The attempts, the newest first.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"event": "Only of this event.", "limit": "Maximum number of results."},
    ),
    "subscription.pull": Operation(
        "Pull events that are due, each with a `delivery`.",
        {200: ("The events, possibly none.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"limit": "Maximum number of results.", "wait_s": "How long to wait for the first event, at most 30."},
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
    parameters = [_parameter(name, "query", text) for name, text in operation.query.items()]
    parameters += [_parameter(name, "header", text) for name, text in operation.headers.items()]
    if parameters:
        formatted["parameters"] = parameters
    if operation.body:
        formatted["requestBody"] = {"required": operation.is_body_required, "content": _content(operation.body)}
    return formatted


def _response(description: str, bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {"description": description} | ({"content": _content(bodies)} if bodies else {})


def _content(bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": dict(schema)} for media_type, schema in bodies.items()}


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "description": description, "schema": dict(TEXT)}
