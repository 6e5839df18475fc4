"""Keeps the connections of signed-in operators out of the ceilings of anonymous ones (:mod:`gateway.listening`)."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from apimgmt.origins import is_public
from gateway.protocols.socket import Message, Send

IS_OPERATORS = "apimgmt.is_operators"
"""Set in the state of the ASGI scope once the operator of a request is known."""


class OperatorsConnections:
    """Notes that an operator is signed in, or that its token is valid. Runs in a thread, so it only notes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        response = self._get_response(request)
        state = getattr(request, "scope", {}).get("state")
        if state is not None and not is_public(request) and request.user.is_authenticated:
            state[IS_OPERATORS] = True
        return response


def proving(scope: Message, send: Send) -> Send:
    """Return a ``send`` that marks the connection of an operator when the answer begins."""
    state = scope.get("state") or {}
    tcp = state.get("tcp")
    if tcp is None:
        return send

    async def send_and_prove(message: Message) -> None:
        if message["type"] == "http.response.start" and state.get(IS_OPERATORS):
            tcp.proved()
        await send(message)

    return send_and_prove
