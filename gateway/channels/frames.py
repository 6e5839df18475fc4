"""The frames that clients send on ``/v1/stream``: JSON text, parsed strictly. A bad frame does not end its socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.log.cloudevents import from_base64
from gateway.refusals import Reason, Refused
from gateway.snapshot.right import interval_of
from gateway.wire.content_types import BYTES, JSON_TYPE, TEXT_TYPE, is_json, media_type_of
from gateway.wire.strict_json import dump, fail, parse

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.config import Config

Frame = Mapping[str, Any]
CLOUDEVENTS = "cloudevents.json"
"""The subprotocol with which events travel as CloudEvents."""


def offered(call: Call) -> list[str]:
    """Return the subprotocols that the client offers."""
    headers = [value for name, value in call.headers if name == b"sec-websocket-protocol"]
    return [part.strip() for part in b",".join(headers).decode("latin-1").split(",")]


def read_frame(message: str | bytes, config: Config) -> tuple[Frame, Refused | None]:
    """Parse one message; a fault is returned instead of raised, since nothing of the frame is known then."""
    if isinstance(message, bytes):
        return {}, malformed("Frames are JSON text, not binary.")
    try:
        # The frame adds one level of nesting around the data.
        frame = parse(message, depth_max=config.json_depth_max + 1, digits_max=config.number_digits_max)
    except Refused as refused:
        return {}, refused
    if not isinstance(frame, dict):
        return {}, malformed("A frame is a JSON object.")
    return frame, None


def type_of(frame: Frame) -> str:
    """Return the type of a frame, or an empty string if it has none."""
    type_ = frame.get("type")
    return type_ if isinstance(type_, str) else ""


def channel_of(frame: Frame) -> str:
    """Return the channel address in a frame. Raises Refused."""
    channel = frame.get("channel")
    if not isinstance(channel, str):
        raise malformed("`channel` is the address of a channel.")
    return channel


def text_of(frame: Frame, name: str) -> str | None:
    """Return a string member, or None if it is absent. Raises Refused."""
    text = frame.get(name)
    if text is not None and not isinstance(text, str):
        raise malformed(f"`{name}` is a string.")
    return text


def conflation_of(frame: Frame) -> float:
    """Return the requested conflation interval in seconds; 0 for every event. Raises Refused."""
    interval = frame.get("conflate")
    if interval is None:
        return 0.0
    if not isinstance(interval, str):
        raise malformed("`conflate` is an interval, as `1s`.")
    return interval_of(interval)


def content_of(frame: Frame, takes: str) -> tuple[bytes, str]:
    """Return the payload in a ``publish`` frame and its media type, for a channel that takes this content type.

    Without ``content_type``, a string is text where the channel does not take JSON. Raises Refused.
    """
    if ("data" in frame) == ("data_base64" in frame):
        raise malformed("`publish` requires `data`, or `data_base64` for bytes.")
    media_type = text_of(frame, "content_type") or media_type_of(takes)
    if "data_base64" in frame:
        return from_base64(frame["data_base64"]), media_type
    data = frame["data"]
    if takes == BYTES and "content_type" not in frame:
        media_type = TEXT_TYPE if isinstance(data, str) else JSON_TYPE
    if is_json(media_type):
        return dump(data), media_type
    if not isinstance(data, str):
        fail("`data` is a string, as its content type is not JSON.", "/data")
    return data.encode(), media_type


def start_of(frame: Frame) -> str:
    """Return the position at which a subscriber starts, as text. Raises Refused."""
    start = frame.get("from", "latest")
    if not isinstance(start, str | int) or isinstance(start, bool):
        raise malformed("`from` is `earliest`, `latest`, an id or an RFC 3339 instant.")
    return str(start)


def malformed(detail: str) -> Refused:
    """Return the refusal of a malformed frame."""
    return Refused(Reason.INVALID_REQUEST, detail, cause="invalid-frame")
