"""Parses the CloudEvents 1.0.2 that publishers send, in structured and binary mode."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from gateway.log.event import decoded
from gateway.wire.content_types import JSON_TYPE, is_json
from gateway.wire.header_fields import Headers
from gateway.wire.strict_json import dump, fail

SPEC_VERSION = "1.0"
_ENVELOPE = {"specversion", "data", "data_base64", "datacontenttype"}
_REQUIRED = ("id", "source", "type")
_PREFIX = b"ce-"
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Content:
    """The parts of a CloudEvent."""

    data: bytes
    content_type: str
    """Empty if the publisher names none for data in base64: it is then what the channel takes."""
    attributes: dict[str, str]


def structured(event: Any, at: str = "") -> Content:
    """Parse an event in structured mode (JSON format 3). Raises Refused with the JSON Pointer of the fault."""
    if not isinstance(event, dict):
        fail("A CloudEvent is a JSON object.", at)
    # A null attribute is unset (JSON format 2.2); null data is a value.
    event = {name: value for name, value in event.items() if value is not None or name == "data"}
    if event.get("specversion") != SPEC_VERSION:
        fail(f"`specversion` is {SPEC_VERSION!r}.", f"{at}/specversion")
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            fail(f"A CloudEvent needs `{name}`.", f"{at}/{name}")
    content_type = event.get("datacontenttype", "" if "data_base64" in event else JSON_TYPE)
    if not isinstance(content_type, str):
        fail("`datacontenttype` is a string.", f"{at}/datacontenttype")
    attributes = {
        name: _attribute(value, f"{at}/{name[:40]}") for name, value in event.items() if name not in _ENVELOPE
    }
    return Content(_data(event, content_type, at), content_type, attributes)


def binary_attributes(headers: Headers) -> dict[str, str]:
    """Parse the attributes of an event in binary mode (HTTP binding 3.1); empty if it is no CloudEvent."""
    attributes = {
        name[len(_PREFIX) :].decode("latin-1"): decoded(_unquoted(value.decode("latin-1").strip()))
        for name, value in headers
        if name.startswith(_PREFIX)
    }
    if attributes:
        if attributes.pop("specversion", None) != SPEC_VERSION:
            fail(f"`ce-specversion` is {SPEC_VERSION}.", "/specversion")
        for name in _REQUIRED:
            if not attributes.get(name):
                fail(f"A CloudEvent needs `ce-{name}`.", f"/{name}")
    return attributes


def _unquoted(value: str) -> str:
    """Remove the quotes that a header's value may have (HTTP binding 3.1.3.2), before percent-decoding."""
    is_quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    return _ESCAPED.sub(r"\1", value[1:-1]) if is_quoted else value


def _data(event: dict[str, Any], content_type: str, at: str) -> bytes:
    if "data_base64" in event:
        if "data" in event:
            fail("A CloudEvent has `data` or `data_base64`.", f"{at}/data_base64")
        return from_base64(event["data_base64"], at)
    data = event.get("data")
    # A string is the content itself where the content is not JSON (JSON format 3.1.1).
    return data.encode() if isinstance(data, str) and not is_json(content_type) else dump(data)


def from_base64(text: Any, at: str = "") -> bytes:
    """Decode the member ``data_base64``. Raises Refused."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        fail("`data_base64` is base64.", f"{at}/data_base64")


def _attribute(value: Any, at: str) -> str:
    if not isinstance(value, str | int):
        fail("An attribute of a CloudEvent is a string, an integer or a boolean.", at)
    return str(value).lower() if isinstance(value, bool) else str(value)
