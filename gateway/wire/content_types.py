"""Content types: what a channel takes, and the media types of its events."""

from __future__ import annotations

import re

JSON, TEXT, BYTES = "json", "text", "bytes"
"""A channel takes these kinds, or one media type."""
JSON_TYPE, TEXT_TYPE, BYTES_TYPE = "application/json", "text/plain", "application/octet-stream"
CONTENT_TYPE_MAX_CHARS = 200
CLOUDEVENTS_TYPE = "application/cloudevents+json"
"""An envelope around an event in JSON."""
_MEDIA_TYPES = {JSON: JSON_TYPE, TEXT: TEXT_TYPE, BYTES: BYTES_TYPE}
_KINDS = {JSON: "JSON", TEXT: "text", BYTES: "bytes of every media type"}
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838 4.2
_ESSENCE = re.compile(f"{_NAME}/{_NAME}", re.ASCII)
_MEDIA_TYPE_TEXT = rf'{_NAME}/{_NAME}(?: *; *[A-Za-z0-9_.+-]+=(?:[A-Za-z0-9_.+/-]+|"[^"\\\r\n]*"))*'
_MEDIA_TYPE = re.compile(_MEDIA_TYPE_TEXT, re.ASCII)
PATTERN = f"^({'|'.join(_MEDIA_TYPES)}|{_MEDIA_TYPE_TEXT})$"
"""What the content type of a channel is, for documents."""


class ContentTypeError(ValueError):
    """The text is not a content type of a channel; the message is safe to show to the caller."""


def parse_content_type(text: str) -> str:
    """Return the content type of a channel as it is stored. Raises ContentTypeError."""
    if text in _MEDIA_TYPES:
        return text
    if len(text) > CONTENT_TYPE_MAX_CHARS or not _MEDIA_TYPE.fullmatch(text):
        raise ContentTypeError("must be `json`, `text`, `bytes` or a media type, as `image/jpeg`")
    name, semicolon, parameters = text.partition(";")
    return name.strip().lower() + semicolon + parameters


def from_media_type(media_type: str) -> str:
    """Return the content type of a channel whose events a document describes by their media type.

    Raises ContentTypeError.
    """
    return JSON if essence_of(media_type) in (JSON_TYPE, CLOUDEVENTS_TYPE) else parse_content_type(media_type)


def is_standard(content_type: str) -> bool:
    """Return whether :func:`from_media_type` reads it from its media type."""
    return from_media_type(media_type_of(content_type)) == content_type


def media_type_of(content_type: str) -> str:
    """Return the media type of an event whose publisher names none, on a channel with this content type."""
    return _MEDIA_TYPES.get(content_type, content_type)


def is_media_type(text: str) -> bool:
    """Return whether a publisher's text names a media type, whatever its parameters are."""
    essence, _, parameters = text.partition(";")
    if len(text) > CONTENT_TYPE_MAX_CHARS or not _ESSENCE.fullmatch(essence.strip(" \t")):
        return False
    return all(character.isprintable() or character == "\t" for character in parameters)


def takes(content_type: str, media_type: str) -> bool:
    """Return whether a channel with this content type takes events of a media type."""
    if content_type == JSON:
        return is_json(media_type)
    if content_type == TEXT:
        return is_text(media_type)
    return content_type == BYTES or essence_of(content_type) == essence_of(media_type)


def describe(content_type: str) -> str:
    """Return what a channel with this content type takes, for its publishers."""
    return _KINDS.get(content_type, content_type)


def essence_of(media_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Return whether a media type is JSON."""
    if media_type == JSON_TYPE:
        return True
    essence = essence_of(media_type)
    return essence == JSON_TYPE or essence.endswith("+json")


def is_text(media_type: str) -> bool:
    """Return whether a media type is text, which is taken as UTF-8."""
    return media_type.lower().startswith("text/")
