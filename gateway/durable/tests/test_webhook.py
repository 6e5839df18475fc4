import base64
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.durable import webhook
from gateway.durable.webhook import Verdict, WebhookResponse

BODY = '{"type":"event","data":"ü"}'.encode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PAUSES = st.lists(st.floats(0, 1e6), min_size=1, max_size=20)


def new_secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def test_the_official_library_verifies_what_is_signed_by_either_secret():
    new, old, other = new_secret(), new_secret(), new_secret()
    headers = webhook.headers("sub_1_42", BODY, (new, old), time.time(), TRACE, "a=1,b=2")
    for secret in (new, old):
        assert Webhook(secret).verify(BODY, headers) == {"type": "event", "data": "ü"}
    for secret, body in ((other, BODY), (new, BODY + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY, headers | {"webhook-id": "sub_1_43"})
    assert (headers["traceparent"], headers["tracestate"]) == (TRACE, "a=1,b=2")


def test_no_context_that_cannot_be_read_goes_out():
    for traceparent, tracestate in (("00-a-b-01\r\nx: y", None), (TRACE, "a=1\r\nx: y"), (None, "a=1")):
        headers = webhook.headers("1", BODY, (new_secret(),), 0.0, traceparent, tracestate)
        assert "x: y" not in str(headers)
        assert "tracestate" not in headers


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, "delivered"), (204, "delivered"), (299, "delivered"), (301, "failed"), (308, "failed"), (304, "failed"),
     (400, "failed"), (404, "failed"), (410, "gone"), (429, "failed"), (500, "failed"), (503, "failed")],
)  # fmt: skip
def test_what_an_answer_means(status, verdict):
    assert webhook.verdict(WebhookResponse(status, {"location": "http://elsewhere.example/"}, b"")) is Verdict(verdict)


@given(PAUSES, st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_shorter_than_its_schedule_and_little_longer(schedule, tries, share):
    pause = webhook.pause_s(schedule, tries, share=share)
    base = schedule[min(tries, len(schedule) - 1)]
    assert base <= pause <= base * (1 + webhook.JITTER)
    assert base <= webhook.pause_s(schedule, tries) <= base * (1 + webhook.JITTER)


def asking_to_wait(text):
    return webhook.retry_after_s(
        WebhookResponse(503, {"retry-after": text} if text is not None else {}, b""), 1_795_000_000.0
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("120", 120), (None, 0), ("", 0), ("soon", 0), ("-5", 0), ("9" * 400, 86400), ("1.5", 0), ("²", 0)],
)  # fmt: skip
def test_what_the_receiver_asks_to_wait_is_read_and_bounded(text, seconds):
    assert asking_to_wait(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", f"Mon, 01 Jan 2030 00:00:00 +{'9' * 20}",
        "Mon, 01 Jan 10000 00:00:00 GMT",
        f"Mon, {'9' * 400} Jan 2030 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "1e400", "NaN", "inf",
    ],
)  # fmt: skip
def test_a_date_that_no_calendar_holds_asks_for_nothing(text):
    assert asking_to_wait(text) == 0


def test_a_date_is_read_as_the_time_until_then():
    at = time.gmtime(1_795_000_000 + 90)
    assert asking_to_wait(time.strftime("%a, %d %b %Y %H:%M:%S GMT", at)) == 90
    past = time.gmtime(1_795_000_000 - 90)
    assert asking_to_wait(time.strftime("%a, %d %b %Y %H:%M:%S GMT", past)) == 0


@given(st.text(max_size=60))
def test_no_text_of_a_receiver_makes_a_fault(text):
    assert 0 <= asking_to_wait(text) <= webhook.RETRY_AFTER_MAX_S
