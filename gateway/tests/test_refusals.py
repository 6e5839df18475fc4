"""The table of refusals, and how each is said."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import CLOSE_REASON_MAX_BYTES, MQTT5_ALLOWED, TABLE, ErrorClass, Packet, Reason, Refused, Row, cut


def test_every_reason_has_its_row():
    assert set(TABLE) == set(Reason)


def test_the_table_refuses_a_code_that_its_packet_may_not_carry():
    with pytest.raises(ValueError, match="CONNACK may not carry reason code 0x8b"):
        Row("x", 503, 1012, {Packet.CONNACK: 0x8B}, 3, 320, ErrorClass.DRAINED, "yes", "x")


@pytest.mark.parametrize("row", TABLE.values(), ids=[reason.value for reason in TABLE])
def test_every_code_is_one_that_its_protocol_knows(row):
    assert 400 <= row.http <= 599
    assert row.websocket in range(1007, 1015) or 3000 <= row.websocket <= 4999
    assert all(packet.value in MQTT5_ALLOWED[code] for packet, code in row.mqtt5.items())
    assert 1 <= row.connack <= 5
    assert row.comes_back in ("no", "yes", "after retry_after_s")
    assert row.advice.endswith(".")


def test_the_documented_codes_stand():
    said = {reason.value: (TABLE[reason].http, TABLE[reason].websocket) for reason in Reason}
    assert said["unauthenticated"] == (401, 3000)
    assert said["forbidden"] == (403, 3003)
    assert said["rate-limited"] == (429, 4429)
    assert said["too-slow"][1] == 4408
    assert said["idle"] == (408, 3008)
    assert said["draining"] == (503, 1012)
    assert said["overloaded"] == (503, 1013)
    assert said["upstream-unavailable"] == (502, 1014)


def test_problem_details_say_what_why_and_until_when():
    refused = Refused(Reason.RATE_LIMITED, retry_after_s=1.5, policies=("requests-per-10s",))
    problem = refused.problem()
    assert problem["type"] == "/docs/refusals#rate-limited"
    assert (problem["status"], problem["reason"], problem["retry_after_s"]) == (429, "rate-limited", 1.5)
    assert problem["violated-policies"] == ["requests-per-10s"]
    assert (b"retry-after", b"2") in refused.http_headers()


def test_a_401_says_how_to_authenticate():
    assert any(name == b"www-authenticate" for name, _ in Refused(Reason.UNAUTHENTICATED).http_headers())


def test_the_cause_is_for_the_log_and_not_for_the_stranger():
    refused = Refused(Reason.UNAUTHENTICATED, cause="key-revoked")
    assert "revoked" not in orjson.dumps(refused.problem()).decode()


@given(st.sampled_from(list(Reason)), st.floats(0, 1e12) | st.none())
def test_a_close_reason_always_fits_its_frame(reason, retry_after_s):
    said = Refused(reason, retry_after_s=retry_after_s).close_reason()
    assert len(said.encode()) <= CLOSE_REASON_MAX_BYTES
    assert orjson.loads(said)["reason"] == reason.value


@given(st.text())
def test_text_is_cut_between_characters(text):
    assert text.startswith(cut(text))
    assert len(cut(text).encode()) <= CLOSE_REASON_MAX_BYTES
