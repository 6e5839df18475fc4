import json

from gateway.log.event import Event, decoded, encoded, from_headers


def event(data=b'{"a": 1}', **more):
    return Event(channel="t", address="t", id=42, time="2026-01-01T00:00:00Z", data=data, **more)


def test_a_frame_is_json_with_the_data_as_published():
    text = event(data=b'{"big": 123456789012345678901234567890}', traceparent="00-x").frame()
    assert '"data":{"big": 123456789012345678901234567890}' in text
    frame = json.loads(text)
    assert (frame["type"], frame["channel"], frame["id"], frame["traceparent"]) == ("event", "t", "42", "00-x")


def test_each_form_is_made_once():
    it = event()
    assert it.frame() is it.frame()
    assert it.sse_data() is it.sse_data()
    assert it.cloudevent() is it.cloudevent()


def test_server_sent_data_is_split_on_every_kind_of_line_end():
    assert event(data=b'{\r\n"a":\r1,\n"b":2}').sse() == b'id: 42\ndata: {\ndata: "a":\ndata: 1,\ndata: "b":2}\n\n'


def test_what_is_no_json_travels_as_text_or_base64():
    assert json.loads(event(data=b"21 \xc2\xb0C", content_type="text/plain").frame())["data"] == "21 °C"
    assert json.loads(event(data=b"\xff\x00", content_type="application/octet-stream").frame())["data_base64"] == "/wA="
    assert event(data=b"\xff\x00", content_type="application/octet-stream").sse() == b"id: 42\ndata: /wA=\n\n"


def test_text_that_is_no_utf_8_comes_back_byte_for_byte():
    it = event(data=b"caf\xe9", content_type="text/plain; charset=iso-8859-1")
    assert json.loads(it.frame())["data_base64"] == json.loads(it.cloudevent())["data_base64"] == "Y2Fm6Q=="
    assert it.sse() == b"id: 42\ndata: Y2Fm6Q==\n\n"


def test_a_cloudevent_says_the_publishers_id_and_our_sequence():
    body = json.loads(
        event(published_id="mine", type="made", source="/s", extensions={"partitionkey": "p"}).cloudevent()
    )
    assert body == {
        "partitionkey": "p", "specversion": "1.0", "id": "mine", "source": "/s", "type": "made", "sequence": "42",
        "time": "2026-01-01T00:00:00Z", "channel": "t", "datacontenttype": "application/json", "data": {"a": 1},
    }  # fmt: skip
    assert json.loads(event().cloudevent())["id"] == "42"


def test_an_event_is_read_from_the_headers_it_was_stored_with():
    headers = {
        "Nats-Sequence": "7", "Nats-Last-Sequence": "3", "ce-type": encoded("naïve type"), "ce-source": "/consumers/a",
        "ce-time": "2026-01-01T00:00:00Z", "ce-partitionkey": "p", "content-type": "application/json",
    }  # fmt: skip
    it = from_headers("a/{x}", "_apimgmt.live.a.b//c", headers, b"1")
    assert (it.address, it.id, it.previous, it.type, it.extensions) == (
        "a/b.c",
        7,
        3,
        "naïve type",
        {"partitionkey": "p"},
    )


def test_any_text_survives_a_header():
    text = "a b\r\nX-Evil: 1 % é \x00 \U0001f600"
    assert encoded(text).isascii()
    assert not any(char.isspace() for char in encoded(text))
    assert decoded(encoded(text)) == text
