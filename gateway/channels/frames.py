"""The frames that come on ``/v1/stream``: JSON text, read strictly; a fault is of one frame and not of its socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.refusals import Reason, Refused
from gateway.snapshot.right import interval_of
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.config import Config

Frame = Mapping[str, Any]
CLOUDEVENTS = "cloudevents.json"
"""The subprotocol in which events come and go as CloudEvents."""


def offered(call: Call) -> list[str]:
    """Give the subprotocols that a caller offers."""
    headers = [value for name, value in call.headers if name == b"sec-websocket-protocol"]
    return [part.strip() for part in b",".join(headers).decode("latin-1").split(",")]


def read_frame(message: str | bytes, config: Config) -> tuple[Frame, Refused | None]:
    """Read one message; a fault is given back, not raised, as nothing of the frame is known then."""
    if isinstance(message, bytes):
        return {}, malformed("Frames are JSON text, not binary.")
    try:
        # The frame is a level of its own around the data.
        frame = parse(message, depth_max=config.json_depth_max + 1, digits_max=config.number_digits_max)
    except Refused as refused:
        return {}, refused
    if not isinstance(frame, dict):
        return {}, malformed("A frame is a JSON object.")
    return frame, None


def type_of(frame: Frame) -> str:
    """Give what a frame says that it is; nothing where it says no such thing."""
    type_ = frame.get("type")
    return type_ if isinstance(type_, str) else ""


def channel_of(frame: Frame) -> str:
    """Give the address that a frame is about. Raises Refused."""
    channel = frame.get("channel")
    if not isinstance(channel, str):
        raise malformed("`channel` is the address of a channel.")
    return channel


def text_of(frame: Frame, name: str) -> str | None:
    """Give a member that is a text, or None where it is left out. Raises Refused."""
    text = frame.get(name)
    if text is not None and not isinstance(text, str):
        raise malformed(f"`{name}` is a string.")
    return text


def conflation_of(frame: Frame) -> float:
    """Read how often a subscriber wants the latest event of each address; 0 for every event. Raises Refused."""
    asked = frame.get("conflate")
    if asked is None:
        return 0.0
    if not isinstance(asked, str):
        raise malformed("`conflate` is an interval, as `1s`.")
    return interval_of(asked)


def start_of(frame: Frame) -> str:
    """Give where a subscriber begins, as text. Raises Refused."""
    start = frame.get("from", "latest")
    if not isinstance(start, str | int) or isinstance(start, bool):
        raise malformed("`from` is `earliest`, `latest`, an id or an RFC 3339 instant.")
    return str(start)


def malformed(detail: str) -> Refused:
    """Refuse a frame that is not as it should be."""
    return Refused(Reason.INVALID_REQUEST, detail, cause="invalid-frame")
