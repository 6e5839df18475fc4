"""CloudEvents attributes in headers of other brokers: binary mode, with the prefix of each protocol binding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.log.event import JSON_TYPE, Event, decoded, encoded

_NO_ATTRIBUTES = ("specversion", "datacontenttype", "traceparent")
_NAME_MAX = 20


def written(event: Event, prefix: str) -> dict[str, str]:
    """Return an event's attributes as headers: ``{prefix}id``, …, ``content-type`` and ``traceparent``."""
    attributes = {
        **event.extensions,
        "specversion": "1.0",
        "id": event.published_id or str(event.id),
        "source": event.source,
        "type": event.type,
        "time": event.time,
        "sequence": str(event.id),
        "channel": event.address,
    }
    if event.subject:
        attributes["subject"] = event.subject
    headers = {f"{prefix}{name}": encoded(value) for name, value in attributes.items() if value}
    headers["content-type"] = event.content_type
    if event.traceparent:
        headers["traceparent"] = event.traceparent
    return headers


def read(headers: Mapping[str, str], prefixes: Iterable[str]) -> tuple[dict[str, str], str, str | None]:
    """Return the CloudEvents attributes, the content type and the trace context of headers; others are ignored."""
    attributes: dict[str, str] = {}
    plain = {name.lower(): value for name, value in headers.items()}
    for name, value in plain.items():
        for prefix in prefixes:
            if value and name.startswith(prefix) and _is_attribute(name[len(prefix) :]):
                attributes[name[len(prefix) :]] = decoded(value)
    # The position in a gateway's own log has no meaning here.
    attributes.pop("sequence", None)
    attributes.pop("channel", None)
    return attributes, plain.get("content-type") or JSON_TYPE, plain.get("traceparent")


def _is_attribute(name: str) -> bool:
    return name.isalnum() and name.isascii() and len(name) <= _NAME_MAX and name not in _NO_ATTRIBUTES


def content_type_of(data: bytes, declared: str | None) -> str:
    """Return the declared content type, or else JSON for data that looks like it, or else octet-stream."""
    return declared or (JSON_TYPE if data[:1] in b'{["-0123456789tfn' and data else "application/octet-stream")
