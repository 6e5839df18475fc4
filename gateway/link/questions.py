"""Questions to the control plane: what only rows can decide, asked over NATS and answered within a deadline.

The other side is :mod:`audit.answering`. Nothing that is proxied, published or delivered waits for such a question.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from gateway.refusals import Reason, Refused
from gateway.wire.strict_json import dump

ASK_SUBJECT = "_apimgmt.ask"
ASK_TIMEOUT_S = 2.0


async def ask(client: Client, verb: str, question: Mapping[str, Any], timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """Ask the control plane (``subscriptions.create``) and give what it says.

    Raises Refused: what the control plane refused, as it did; ``overloaded`` where it does not answer in time, and what
    was asked for may or may not have been done; ``too-large`` for a question that NATS does not carry.
    """
    try:
        if not client.is_connected:
            # It would lie in the buffer, and be done long after we have said no.
            raise ConnectionError
        async with asyncio.timeout(timeout_s):
            answer = await client.request(f"{ASK_SUBJECT}.{verb}", dump(question), timeout=timeout_s)
    except MaxPayloadError:
        raise Refused(Reason.TOO_LARGE) from None
    except (TimeoutError, OSError, NatsError) as error:
        raise Refused(
            Reason.OVERLOADED, "The control plane does not answer.", retry_after_s=1, cause="control-plane-away"
        ) from error
    said = json.loads(answer.data)  # every digit of an integer is kept
    if "refused" in said:
        raise _refused(said["refused"])
    return said["said"]


def answered(said: Any) -> bytes:
    """Write an answer."""
    return dump({"said": said})


def refused(error: Refused) -> bytes:
    """Write a refusal as an answer."""
    return dump(
        {
            "refused": {
                "reason": error.reason.value,
                "detail": error.detail,
                "cause": error.cause,
                "status": error.status,
                "retry_after_s": error.retry_after_s,
                "members": error.members,
            }
        }
    )


def _refused(said: Mapping[str, Any]) -> Refused:
    return Refused(
        Reason(said["reason"]),
        said["detail"],
        cause=said["cause"],
        status=said["status"],
        retry_after_s=said["retry_after_s"],
        members=said["members"],
    )
