"""What tests of policies on HTTP routes share: a schema, answers of the upstream, and what became of a call."""

from __future__ import annotations

import json
from typing import Any

from gateway.tests.http_plane import Answer, say
from gateway.tests.policed import HOOKS, policy

JSON = "content-type: application/json"
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["name"],
}


def answers(body: str, *lines: str, status: str = "200 OK", type_: str = "application/json") -> Any:
    """Return an upstream that answers everything with this body."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {type_}", f"content-length: {len(body)}", *lines])
    return say(f"{head}\r\n\r\n{body}")


def problem(answer: Answer) -> tuple[int, str, dict[str, Any]]:
    """Return status, reason and members of a refusal."""
    members = json.loads(answer.body)
    return answer.status, members["reason"], members


def undated(answer: Answer) -> list[tuple[str, str]]:
    return [header for header in answer.headers if header[0] != "date"]


def forwarded_body(plane: Any) -> bytes:
    """Return the body that the upstream received last."""
    body: bytes = plane.behind.requests[-1].body
    return body


def limited_by(function: str, mode: str = "enforce", **more: Any) -> dict[str, Any]:
    return policy("rate-limit", mode, rateLimitBy="function", function=f"{HOOKS}:{function}", **more)
