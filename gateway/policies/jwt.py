"""``jwt``: the route takes tokens alone, of issuers that it trusts and with claims that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import BadOption, Policy, only, texts
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal

Plain = str | int | float


class Jwt(Policy):
    """Options: ``issuers``, names of issuers (left out: all); ``required_claims``, an object of claims and values.

    A claim that is a list fits where one of its values does; a value that is a list is fitted by any of its own.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("issuers", "required_claims"))
        self._issuers = frozenset(texts(options, "issuers"))
        if "issuers" in options and not self._issuers:
            raise BadOption("issuers", "Names of issuers, one at least; leave it out for all of them.")
        claims = options.get("required_claims", {})
        if not isinstance(claims, Mapping):
            raise BadOption("required_claims", "An object: claims and the values that they must have.")
        self._claims = [(name, _values(value, f"required_claims.{name}")) for name, value in claims.items()]

    def inbound(self, call: Call) -> None:
        """Refuse a caller without a token, or with one that does not fit."""
        self.caller(call.caller)

    def caller(self, principal: Principal) -> None:
        """Refuse who has no token that fits: at the door, and when a connection shows a newer credential."""
        token = principal.token
        if token is None:
            raise Refused(
                Reason.UNAUTHENTICATED, "This route takes tokens of an issuer, not keys.", cause="token-needed"
            )
        if self._issuers and token.issuer.name not in self._issuers:
            raise Refused(Reason.FORBIDDEN, "This route takes tokens of another issuer.", cause="token-issuer-refused")
        for name, wanted in self._claims:
            if not _fits(token.claims.get(name), wanted):
                said = f"This route asks for another value of the claim `{name}`."
                raise Refused(Reason.FORBIDDEN, said, cause="token-claim-refused")


def _values(value: Any, at: str) -> list[Plain]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, Plain) for one in values):
        raise BadOption(at, "A text, a number, true or false, or a list of these.")
    return values


def _fits(claimed: Any, wanted: list[Plain]) -> bool:
    held = claimed if isinstance(claimed, list) else [claimed]
    return any(_is_same(one, value) for one in held for value in wanted)


def _is_same(claimed: Any, wanted: Plain) -> bool:
    # Python holds True for 1; JSON does not.
    return isinstance(claimed, bool) is isinstance(wanted, bool) and bool(claimed == wanted)
