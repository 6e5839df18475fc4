"""Requests to the control plane, for decisions that need the database: NATS request and reply, with a deadline.

:mod:`audit.data_plane_requests` is the other side. No proxied call, publication or delivery waits for such a request.
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

REQUEST_SUBJECT = "_apimgmt.ask"
REQUEST_TIMEOUT_S = 2.0
INLINE_MAX_BYTES = 64 * 1024
"""A larger reply is parsed on a thread."""


async def request_control_plane(
    client: Client, verb: str, body: Mapping[str, Any], timeout_s: float = REQUEST_TIMEOUT_S
) -> Any:
    """Send a request such as ``subscriptions.create`` to the control plane and return its result.

    Raises Refused: the control plane's own refusal, unchanged; ``overloaded`` if it does not answer in time, in which
    case the request may or may not have been carried out; ``too-large`` for a body that exceeds NATS's limit.
    """
    try:
        if not client.is_connected:
            # The client would buffer the request, and send it long after the caller was refused.
            raise ConnectionError
        async with asyncio.timeout(timeout_s):
            message = await client.request(f"{REQUEST_SUBJECT}.{verb}", dump(body), timeout=timeout_s)
    except MaxPayloadError:
        raise Refused(Reason.TOO_LARGE) from None
    except (TimeoutError, OSError, NatsError) as error:
        raise Refused(
            Reason.OVERLOADED,
            "The control plane does not answer. Check whether the change was made before you try again.",
            retry_after_s=1,
            cause="control-plane-away",
        ) from error
    # orjson would turn integers beyond 64 bits into floats.
    if len(message.data) <= INLINE_MAX_BYTES:
        reply = json.loads(message.data)
    else:
        reply = await asyncio.to_thread(json.loads, message.data)
    if "refused" in reply:
        raise _decode_refusal(reply["refused"])
    return reply["result"]


def encode_result(result: Any) -> bytes:
    """Return the reply that carries a result."""
    return dump({"result": result})


def encode_refusal(refused: Refused) -> bytes:
    """Return the reply that carries a refusal, which the data plane raises again."""
    return dump(
        {
            "refused": {
                "reason": refused.reason.value,
                "detail": refused.detail,
                "cause": refused.cause,
                "status": refused.status,
                "retry_after_s": refused.retry_after_s,
                "members": refused.members,
            }
        }
    )


def _decode_refusal(fields: Mapping[str, Any]) -> Refused:
    return Refused(
        Reason(fields["reason"]),
        fields["detail"],
        cause=fields["cause"],
        status=fields["status"],
        retry_after_s=fields["retry_after_s"],
        members=fields["members"],
    )
