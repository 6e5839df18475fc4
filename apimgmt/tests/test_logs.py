import json
import logging

import pytest

from apimgmt.logs import JsonFormatter, StrangersLines, redacted
from gateway.credentials.api_keys import new_key


def line(message, *args, exc_info=None):
    record = logging.LogRecord("gateway", logging.ERROR, __file__, 1, message, args, exc_info)
    return JsonFormatter().format(record)


def test_a_key_is_struck_out_and_its_public_id_stays():
    key = new_key(b"pepper")
    written = redacted(f"GET /v1/me X-API-Key: {key.text}")
    assert key.text not in written
    assert f"apim_{key.id}_[redacted]" in written


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Token 4d1999e8cb8b2b6d4f952dbcf1be508a1f130268", "4d1999e8"),
        ("authorization: bearer abcdefgh.ijkl", "abcdefgh"),
        ("?ticket=tick_Zm9vYmFyYmF6", "Zm9vYmFyYmF6"),
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8"),
        ("redis://:pa55word@127.0.0.1:1/0", "pa55word"),
        ("postgres://user:pa55word@db/name", "pa55word"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl end", "eyJzdWIiOi"),
    ],
)
def test_secrets_of_every_kind_are_struck_out(text, secret):
    written = redacted(text)
    assert secret not in written
    assert "[redacted]" in written


def test_secrets_in_tracebacks_are_struck_out():
    try:
        raise ValueError("cannot reach nats://user:hunter22@127.0.0.1")
    except ValueError as error:
        written = line("failed", exc_info=(type(error), error, error.__traceback__))
    assert "hunter22" not in written
    assert "Traceback" in json.loads(written)["exception"]


@pytest.mark.parametrize("unseen", ["\n", "\r", "\x1b[2J", "\x9b2J", "\u2028", "\u202e", "\ud800", "\x00"])
def test_a_record_is_one_line_that_steers_no_terminal(unseen):
    written = line("%s", f"before{unseen}after")
    assert written.isascii() or unseen not in written
    assert len(written.splitlines()) == 1
    assert json.loads(written)["level"] == "error"
    assert not any(letter in written for letter in "\x1b\x9b\u2028\u202e\x00")


def test_a_record_is_bounded():
    assert len(line("x" * 1_000_000)) < 20_000


def test_what_is_said_of_a_call_names_its_trace():
    record = logging.LogRecord("gateway", logging.ERROR, __file__, 1, "call failed", (), None)
    record.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    assert json.loads(JsonFormatter().format(record))["trace_id"] == "a" * 32
    record.traceparent = None
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


def test_what_strangers_cause_in_django_is_one_short_warning_a_minute():
    def passed(name):
        record = logging.LogRecord(name, logging.ERROR, __file__, 1, "x" * 5_000, (), (ValueError, ValueError(), None))
        return json.loads(JsonFormatter().format(record)) if lines.filter(record) else None

    lines = StrangersLines()
    first = passed("django.security.DisallowedHost")
    assert (first["level"], len(first["message"]), "exception" in first) == ("warning", 300, False)
    assert [passed("django.security.DisallowedHost") for _ in range(50)] == [None] * 50
    assert passed("django.security.csrf") is not None
    assert [passed("gateway.pipeline")["level"] for _ in range(2)] == ["error", "error"]
