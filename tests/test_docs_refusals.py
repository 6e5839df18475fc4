"""docs/refusals.md matches gateway/refusals.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.refusals import TABLE, Packet, Reason, Row

PAGE = Path(__file__).parent.parent / "docs" / "refusals.md"

HEAD = """\
# Refusals

<!-- Printed from gateway/refusals.py. To print it again: .venv/bin/python -m tests.test_docs_refusals -->

Every reason for which the gateway refuses a call, with its code in each protocol. The reason is the same everywhere: it
is the member `reason` of problem details (RFC 9457), of `error` frames and of close reasons. The problem `type` is
`/docs/refusals#<reason>`.

- **HTTP**: the status. A 401 has `WWW-Authenticate`; a refusal with a known waiting time has `Retry-After` and
  `retry_after_s`; one by a limit has `violated-policies`, the names of the limits as in `RateLimit-Policy`.
- **WebSocket**: the close code. A refused handshake gets the HTTP response; a refused message gets an `error` frame,
  and the connection stays open unless the reason requires that it is closed.
- **MQTT 5**: the reason code in each packet that can carry it. **MQTT 3.1.1**: the CONNACK code; an open connection
  is closed without a reason, as 3.1.1 has no packet for it.
- **AMQP**: the reply code.
- **Retry?** Whether the same call can succeed later: `no`, not unless something is changed; `yes`, soon, with
  increasing delays; `after retry_after_s`, once that time has passed.

"""

PACKETS = {
    Packet.CONNACK: "CONNACK",
    Packet.PUBACK: "PUBACK, PUBREC",
    Packet.SUBACK: "SUBACK",
    Packet.DISCONNECT: "DISCONNECT",
}


def mqtt5(row: Row) -> str:
    """List the codes, each with the packets that carry it."""
    packets: dict[int, list[str]] = {}
    for packet, code in row.mqtt5.items():
        packets.setdefault(code, []).append(PACKETS[packet])
    return "<br>".join(f"0x{code:02X} {', '.join(names)}" for code, names in sorted(packets.items())) or "–"


def line(reason: Reason, row: Row) -> str:
    """Print one reason as a row of the table."""
    cells = (
        f"[{reason.value}](#{reason.value})", str(row.http), str(row.websocket or "–"), mqtt5(row),
        str(row.connack or "–"), str(row.amqp or "–"), row.retry,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Print the page."""
    lines = [
        "| reason | HTTP | WebSocket | MQTT 5 | MQTT 3.1.1 | AMQP | retry? |",
        "|---|---|---|---|---|---|---|",
        *(line(reason, row) for reason, row in TABLE.items()),
        "",
        "## What to do",
    ]
    for reason, row in TABLE.items():
        lines += ["", f"### {reason.value}", "", f"**{row.title}.** {row.advice} Retry: {row.retry}."]
    return HEAD + "\n".join(lines) + "\n"


def rows_of_the_page() -> dict[str, list[str]]:
    """Read the table back from the page, by reason."""
    rows = [row.strip("| ").split(" | ") for row in PAGE.read_text().splitlines() if row.startswith("| [")]
    return {cells[0].split("]")[0].strip("["): cells for cells in rows}


@pytest.mark.parametrize("reason", Reason)
def test_the_page_says_how_each_protocol_refuses(reason):
    row, cells = TABLE[reason], rows_of_the_page()[reason.value]
    assert [cells[1], cells[2], cells[4], cells[6]] == [
        str(row.http), str(row.websocket), str(row.connack), row.retry,
    ]  # fmt: skip
    for code in row.mqtt5.values():
        assert f"0x{code:02X}" in cells[3]


@pytest.mark.parametrize("reason", Reason)
def test_the_page_advises_on_each_reason_at_the_address_that_problems_name(reason):
    section = PAGE.read_text().split(f"\n### {reason.value}\n")[1].split("\n### ")[0]
    assert TABLE[reason].advice in section
    assert TABLE[reason].title in section


def test_the_page_lists_nothing_else():
    assert set(rows_of_the_page()) == {reason.value for reason in Reason}


def test_the_page_is_as_printed():
    assert PAGE.read_text() == page(), "print it again: .venv/bin/python -m tests.test_docs_refusals"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE} printed\n")
