"""Where requests enter Django: with the address of their client, a path that Django can match, and bounded bodies."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings

from apimgmt.body_bound import refuse, serve_bounded
from apimgmt.forwarded import as_client_sent
from gateway.protocols.socket import Message, Receive, Send
from gateway.refusals import Reason, Refused

_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
"""Control characters and line separators. Patterns of paths do not match across lines."""


async def serve(application: Any, scope: Message, receive: Receive, send: Send) -> None:
    """Serve a request by Django, or refuse it with problem details."""
    if _CONTROL.search(scope["path"]):
        await refuse(send, Refused(Reason.INVALID_REQUEST, "The path holds a control character."))
    else:
        await serve_bounded(application, as_client_sent(scope, settings.TRUSTED_PROXIES), receive, send)
