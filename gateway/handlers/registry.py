"""The schema registry at ``/registry``: Confluent's REST API, answered by the control plane.

The control plane decides by the caller's scopes what it may read and change (:mod:`events.registry_access`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from gateway.call import Call, Reply
from gateway.handlers.requests import query_pairs, read_body
from gateway.handlers.responses import send_body
from gateway.link.control_plane import request_control_plane
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import REGISTRY_PREFIX
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.plane import Plane

CONTENT_TYPE = b"application/vnd.schemaregistry.v1+json"
REGISTRY = "registry"
REQUEST_TIMEOUT_S = 5.0
"""The control plane compares pathological schemas for up to a second."""


async def serve(plane: Plane, call: Call) -> Reply:
    """Serve any method of any path under ``/registry``."""
    parts = _parts(call)
    body = await read_body(call, plane.log.payload_max_bytes)
    answer = await request_control_plane(
        plane.nats,
        REGISTRY,
        {
            "method": "GET" if call.method == "HEAD" else call.method,
            "path": parts,
            "query": query_pairs(call),
            "body": await plane.side_threads.run(call.caller.consumer, len(body), parse, body) if body else None,
            "by": f"{call.caller.consumer} ({call.caller.key})",
            "scopes": call.caller.scopes,
            "ceiling": call.caller.ceiling,
        },
        REQUEST_TIMEOUT_S,
    )
    text = answer["text"].encode() if "text" in answer else orjson.dumps(answer["body"])
    reply = await send_body(plane.limiter, call, answer["status"], text, content_type=CONTENT_TYPE)
    reply.bytes_in = len(body)
    return reply


def add_registry_error(refused: Refused) -> None:
    """Add the error members that clients of Confluent's registry read."""
    refused.members = {**refused.members, "error_code": refused.status * 100 + 1, "message": refused.detail}


def _parts(call: Call) -> list[str]:
    """Split the raw path, so that a subject may contain an encoded slash."""
    raw = call.raw_path.decode("latin-1") or call.address
    try:
        parts = [unquote(part, errors="strict") for part in raw.removeprefix(REGISTRY_PREFIX).split("/")]
    except UnicodeDecodeError:
        raise Refused(Reason.INVALID_REQUEST, "The path is not UTF-8.") from None
    return [part for part in parts if part]
