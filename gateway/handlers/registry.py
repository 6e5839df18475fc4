"""The schema registry at ``/registry``: Confluent's REST API, answered by the control plane, on the key's authority.

Reading takes any valid key. What changes a subject takes the right to publish under the subject's name; what changes
the default of all subjects takes ``publish:*``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import orjson

from gateway.call import Call, Reply
from gateway.identity.rights import require
from gateway.link.control_plane import request_control_plane
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import REGISTRY_PREFIX
from gateway.snapshot.right import Right, Verb
from gateway.wire.strict_json import parse

if TYPE_CHECKING:
    from gateway.plane import Plane

CONTENT_TYPE = b"application/vnd.schemaregistry.v1+json"
REGISTRY = "registry"
ASK_TIMEOUT_S = 5.0
"""A comparison of pathological schemas takes a second before it is given up."""
_OF_SUBJECTS = ("subjects", "config", "mode")


async def serve(plane: Plane, call: Call) -> Reply:
    """Serve any method of any path under ``/registry``."""
    parts = _parts(call)
    _require_right(call, parts)
    body = b"".join([part async for part in _body(call)])
    said = await request_control_plane(
        plane.nats,
        REGISTRY,
        {
            "method": "GET" if call.method == "HEAD" else call.method,
            "path": parts,
            "query": _query(call),
            "body": parse(body) if body else None,
            "by": f"{call.caller.consumer} ({call.caller.key})",
        },
        ASK_TIMEOUT_S,
    )
    answer = said["text"].encode() if "text" in said else orjson.dumps(said["body"])
    headers = [
        (b"content-type", CONTENT_TYPE),
        (b"content-length", str(len(answer)).encode()),
        (b"cache-control", b"no-store"),
        *plane.limiter.headers(call),
    ]
    await call.peer.start(said["status"], headers)
    await call.peer.send(b"" if call.method == "HEAD" else answer, more=False)
    return Reply(status=said["status"], bytes_in=len(body), bytes_out=len(answer))


def tell_clients_of_registries(refused: Refused) -> None:
    """Add the members in which clients of Confluent's registry look for what went wrong."""
    refused.members = {**refused.members, "error_code": refused.status * 100 + 1, "message": refused.detail}


def _parts(call: Call) -> list[str]:
    """Cut the path as it came, so that a subject may hold an encoded slash."""
    raw = call.raw_path.decode("latin-1") or call.address
    try:
        parts = [unquote(part, errors="strict") for part in raw.removeprefix(REGISTRY_PREFIX).split("/")]
    except UnicodeDecodeError:
        raise Refused(Reason.INVALID_REQUEST, "The path is not UTF-8.") from None
    return [part for part in parts if part]


def _require_right(call: Call, parts: list[str]) -> None:
    is_lookup = call.method == "POST" and (parts[:1] == ["compatibility"] or len(parts) == 2)
    if call.method in ("GET", "HEAD") or is_lookup:
        return
    subject = parts[1] if len(parts) > 1 and parts[0] in _OF_SUBJECTS else "*"
    require(call.caller, Right(Verb.PUBLISH, subject))


def _query(call: Call) -> list[tuple[str, str]]:
    try:
        return parse_qsl(call.query.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise Refused(Reason.INVALID_REQUEST, "The query string cannot be read.") from None


async def _body(call: Call) -> Any:
    while part := await call.peer.read():
        yield part
