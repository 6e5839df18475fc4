"""What the data plane's own addresses take and answer, by handler: one row each, written as OpenAPI operations."""

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


def members(*needed: str, **properties: Schema) -> Schema:
    """Describe an object; the members named first are always there."""
    return {"type": "object", "properties": properties, **({"required": list(needed)} if needed else {})}


def list_of(schema: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": schema}


@dataclass(frozen=True, slots=True)
class Said:
    """What one operation does."""

    summary: str
    answers: Mapping[int, tuple[str, Mapping[str, Schema]]]
    """By status: what it means, and its bodies by media type."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    """By media type."""
    is_body_needed: bool = True


_EVENT = members(
    "type", "channel", "id", "time", "data",
    type={"const": "event"}, channel=TEXT, id=TEXT, time=TEXT, data=ANY, traceparent=TEXT,
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
_SECRET: Schema = {**TEXT, "description": "`whsec_…`: shown this once."}
_WITH_SECRET: Schema = {**_SUBSCRIPTION, "properties": {**_SUBSCRIPTION["properties"], "secret": _SECRET}}
_NEW_SUBSCRIPTION = members(
    "type", "channel",
    type={"enum": ["pull", "webhook"]}, channel=TEXT, url=TEXT, order=TEXT, max_in_flight=COUNT, max_attempts=COUNT,
    retry_schedule_s=list_of(SECONDS), ack_wait_s=SECONDS, alert_url=TEXT, alert_lag_events=COUNT, alert_lag_s=SECONDS,
    **{"from": TEXT},
)  # fmt: skip
_IDS = members("ids", ids=list_of(TEXT), seconds=SECONDS)
_IDEMPOTENCY_KEY = {
    "Idempotency-Key": "A repeat with it gives the first answer again; another body is refused with 422."
}
_STREAM_QUERY = {
    "from": "`earliest`, `latest` (left out), an id or an RFC 3339 instant.",
    "last_event_id": "The last id seen; the header `Last-Event-ID` wins.",
    "conflate": "An interval such as `1s`: the latest event of each address in each.",
    "ticket": "A connect ticket in place of a key.",
}
_PUBLISHED = {201: ("Stored.", {JSON: {"anyOf": [members("id", id=TEXT), members("ids", ids=list_of(TEXT))]}})}

SAID: Mapping[str, Said] = {
    "stream": Said(
        "One WebSocket for many channels; its frames are those of the docs, their payloads those of /v1/asyncapi.json.",
        {101: ("The socket is open.", {})},
        query={"ticket": _STREAM_QUERY["ticket"]},
    ),
    "events": Said(
        "Live events of 1 to 50 channels, after those since a position.",
        {200: ("Server-sent events; `data` is the payload, `id` the position.", {STREAM: TEXT})},
        query={"channel": "An address or template; may be given several times.", **_STREAM_QUERY},
        headers={"Last-Event-ID": "The last id seen."},
    ),
    "publish": Said(
        "Publish one event, or an array of them; the answer follows the store.",
        _PUBLISHED,
        headers=_IDEMPOTENCY_KEY,
        body={JSON: ANY, EVENTS_JSON: OBJECT, BATCH_JSON: list_of(OBJECT)},
    ),
    "history": Said(
        "Stored events after an id, oldest first.",
        {
            200: (
                "A page.",
                {JSON: members("results", "next", results=list_of(_EVENT), next={"type": ["string", "null"]})},
            ),
            410: ("Events up to `oldest` are no longer kept.", {PROBLEM: OBJECT}),
        },
        query={"after": "The id before the first event wanted.", "limit": "1 to 1000; 100 left out."},
    ),
    "ticket": Said(
        "A connect ticket: proves this key once, within seconds, where a browser cannot set headers.",
        {201: ("The ticket.", {JSON: members("ticket", "expires_in_s", ticket=TEXT, expires_in_s=COUNT)})},
    ),
    "me": Said(
        "Who the caller is here: consumer, tier, scopes, limits and what is left of each.",
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
    "asyncapi": Said(
        "What this key may send and receive, as AsyncAPI 3.0.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("As it was.", {})},
        query={"channel": "Of these channels alone; up to 50 times."},
        headers={"If-None-Match": "The `ETag` of the document that is known."},
    ),
    "openapi": Said(
        "What this key may call, as OpenAPI 3.1.",
        {200: ("The document.", {JSON: OBJECT}), 304: ("As it was.", {})},
        headers={"If-None-Match": "The `ETag` of the document that is known."},
    ),
    "job.submit": Said(
        "Hand in work that is done later.",
        {202: ("Taken; `Location` says where it is told how it stands.", {JSON: _JOB})},
        headers=_IDEMPOTENCY_KEY,
        body={JSON: ANY},
        is_body_needed=False,
    ),
    "job.status": Said("How one of the caller's own jobs stands.", {200: ("The job.", {JSON: _JOB})}),
    "job.cancel": Said(
        "Cancel a job.", {200: ("It has ended.", {JSON: _JOB}), 202: ("It was asked to end.", {JSON: _JOB})}
    ),
    "job.result": Said(
        "The file that a signed link names; the link is the proof.",
        {200: ("The file.", {"application/octet-stream": ANY})},
        query={"expires": "From the link.", "signature": "From the link."},
    ),
    "job.events": Said("How a job stands, each time that it changes.", {200: ("Until it has ended.", {STREAM: TEXT})}),
    "subscription.list": Said(
        "The caller's own durable subscriptions.",
        {200: ("All of them.", {JSON: members("results", results=list_of(_SUBSCRIPTION))})},
        query={"channel": "Of this channel alone.", "state": "In this state alone.", "type": "`pull` or `webhook`."},
    ),
    "subscription.create": Said(
        "Make a durable subscription.",
        {201: ("Made.", {JSON: _WITH_SECRET})},
        headers=_IDEMPOTENCY_KEY,
        body={JSON: _NEW_SUBSCRIPTION},
    ),
    "subscription.show": Said("How a subscription stands.", {200: ("The subscription.", {JSON: _SUBSCRIPTION})}),
    "subscription.change": Said(
        "Change a subscription.", {200: ("Changed.", {JSON: _SUBSCRIPTION})}, body={JSON: OBJECT}
    ),
    "subscription.delete": Said("Delete a subscription.", {204: ("Deleted.", {})}),
    "subscription.rotate": Said(
        "Another secret; the one before is good for the overlap.",
        {201: ("The new secret.", {JSON: _WITH_SECRET})},
        body={JSON: members(overlap_s=SECONDS)},
    ),
    "subscription.attempts": Said(
        "The last tries to deliver to a webhook: request, answer, duration.",
        {200: ("The attempts, the newest first.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"event": "Of this event alone.", "limit": "At most so many."},
    ),
    "subscription.pull": Said(
        "Events that are due, each with a `delivery`.",
        {200: ("What there is.", {JSON: members("results", results=list_of(OBJECT))})},
        query={"limit": "At most so many.", "wait_s": "Wait so long for the first, at most 30."},
    ),
    "subscription.ack": Said("These are done with.", {200: ("Settled.", {JSON: OBJECT})}, body={JSON: _IDS}),
    "subscription.nack": Said(
        "Give these again, after so long.", {200: ("Put off.", {JSON: OBJECT})}, body={JSON: _IDS}
    ),
    "subscription.extend": Said(
        "Do not give these again before so long has passed.", {200: ("Put off.", {JSON: OBJECT})}, body={JSON: _IDS}
    ),
}


def operation(said: Said) -> dict[str, Any]:
    """Write an operation, without its name, path parameters and refusals."""
    written: dict[str, Any] = {
        "summary": said.summary,
        "responses": {str(status): _answer(*answer) for status, answer in said.answers.items()},
    }
    parameters = [_parameter(name, "query", text) for name, text in said.query.items()]
    parameters += [_parameter(name, "header", text) for name, text in said.headers.items()]
    if parameters:
        written["parameters"] = parameters
    if said.body:
        written["requestBody"] = {"required": said.is_body_needed, "content": _content(said.body)}
    return written


def _answer(description: str, bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {"description": description} | ({"content": _content(bodies)} if bodies else {})


def _content(bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": dict(schema)} for media_type, schema in bodies.items()}


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "description": description, "schema": dict(TEXT)}
