"""Functions that policies of the demo may name; docs/policies.md shows them. Copy one and change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.hooks import DROP, Answer, Call, Message, Refuse, Request

FREE = {"amount": 60, "per": 60}
PAID = {"amount": 6000, "per": 60, "burst": 200}


def limit_of(call: Call) -> dict[str, Any] | None:
    """``rate-limit``: one budget for all consumers of a tenant, none for those who are trusted."""
    who = call.principal
    if who.metadata.get("trusted"):
        return None
    return {"key": who.metadata.get("tenant", who.consumer), **(PAID if who.tier == "gold" else FREE)}


def add_region(call: Call, request: Request, options: Mapping[str, Any]) -> Answer | None:
    """``custom`` inbound: tell the upstream the caller's region; answer by itself where there is nothing for it."""
    region = call.principal.metadata.get("region", options.get("region", "eu"))
    if region in options.get("closed", ()):
        return Answer(451, {"detail": f"Not available in {region}."})
    request.headers["X-Region"] = region
    return None


async def stamp(call: Call, answer: Answer, options: Mapping[str, Any]) -> None:
    """``custom`` outbound, with the option ``body``: say in each JSON answer whom it was given to."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        answer.json = {"for": call.principal.consumer, "data": answer.json}


def screen(call: Call, message: Message, options: Mapping[str, Any]) -> Any:
    """``custom`` per message: drop what is empty, refuse what is forbidden, and sign the rest."""
    if not message.data:
        return DROP
    if any(word in str(message.data) for word in options.get("forbidden", ())):
        return Refuse("invalid-payload", "A word of this message is not allowed.")
    if message.direction == "in" and message.data[:1] == "{":
        message.json = message.json | {"from": call.principal.consumer}
    return None
