"""CloudEvents attributes in headers of other brokers: binary mode, with the prefix of each protocol binding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.log.event import Event, decoded, encoded

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
    """Return the CloudEvents attributes, the content type and the trace context of headers; others are ignored.

    The content type is empty without its header: it is then what the channel takes.
    """
    attributes: dict[str, str] = {}
    plain = {name.lower(): value for name, value in headers.items()}
    for name, value in plain.items():
        for prefix in prefixes:
            if value and name.startswith(prefix) and _is_attribute(name[len(prefix) :]):
                attributes[name[len(prefix) :]] = decoded(value)
    # The position in a gateway's own log has no meaning here.
    attributes.pop("sequence", None)
    attributes.pop("channel", None)
    return attributes, plain.get("content-type", ""), plain.get("traceparent")


def _is_attribute(name: str) -> bool:
    return name.isalnum() and name.isascii() and len(name) <= _NAME_MAX and name not in _NO_ATTRIBUTES
