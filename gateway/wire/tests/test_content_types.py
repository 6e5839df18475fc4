import pytest

from gateway.wire.content_types import ContentTypeError, from_media_type, is_standard, parse_content_type, takes


@pytest.mark.parametrize(
    ("content_type", "taken", "refused"),
    [
        (
            "json",
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.a+json"],
            ["text/plain", "a/b"],
        ),
        ("text", ["text/plain", "TEXT/csv; charset=utf-8"], ["application/json", "application/xml"]),
        ("bytes", ["image/jpeg", "application/json", "text/plain"], []),
        ("image/jpeg", ["image/jpeg", "IMAGE/JPEG"], ["image/png", "application/octet-stream", "application/json"]),
        ("text/csv; header=present", ["text/csv"], ["text/plain"]),
    ],
)
def test_a_channel_takes_what_it_names(content_type, taken, refused):
    assert parse_content_type(content_type) == content_type
    assert all(takes(content_type, media_type) for media_type in taken)
    assert not any(takes(content_type, media_type) for media_type in refused)


@pytest.mark.parametrize(
    "text", ["", "jpeg", "JSON", "image/", "/jpeg", "image/*", "a b/c", "a/b;", "a/b\n", "é/b", "a/" + "b" * 200]
)
def test_what_is_neither_a_kind_nor_a_media_type_is_refused(text):
    with pytest.raises(ContentTypeError, match="a media type"):
        parse_content_type(text)


def test_a_media_type_is_compared_without_case():
    assert parse_content_type("Image/SVG+xml; Charset=UTF-8") == "image/svg+xml; Charset=UTF-8"


@pytest.mark.parametrize(
    ("media_type", "content_type"),
    [
        ("application/json", "json"),
        ("application/json; charset=utf-8", "json"),
        ("application/cloudevents+json", "json"),
        ("application/vnd.acme+json", "application/vnd.acme+json"),
        ("text/plain", "text/plain"),
        ("application/octet-stream", "application/octet-stream"),
    ],
)
def test_the_media_type_of_a_document_is_taken_as_it_is(media_type, content_type):
    assert from_media_type(media_type) == content_type


def test_kinds_that_no_media_type_names_are_known():
    assert [is_standard(kind) for kind in ("json", "image/jpeg", "text", "bytes", "application/json")] == [
        True, True, False, False, False,
    ]  # fmt: skip
