"""``jwt``: the route accepts only tokens, of issuers that it trusts and with claims that it requires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only, strings
from gateway.policies.policy import Build, Policy
from gateway.refusals import Reason, Refused
from gateway.snapshot.principal import Principal

Scalar = str | int | float
Claims = list[tuple[str, list[Scalar]]]


def jwt(options: Mapping[str, Any]) -> Build:
    """Read the options: ``issuers``, names (default: all); ``required_claims``, an object of claims and values."""
    allow_only(options, ("issuers", "required_claims"))
    issuers = frozenset(strings(options, "issuers"))
    if "issuers" in options and not issuers:
        raise BadOption("issuers", "Must name at least one issuer; leave the option out to accept all of them.")
    required = options.get("required_claims", {})
    if not isinstance(required, Mapping):
        raise BadOption("required_claims", "Must be an object of claims and the values that they must have.")
    claims = [(name, _values(value, f"required_claims.{name}")) for name, value in required.items()]
    return lambda _: Jwt(issuers, claims)


class Jwt(Policy):
    """Refuses callers without a token of one of these issuers, with these claims.

    A claim that is a list matches if one of its values does; so does a required value that is a list.
    """

    is_of_caller = True

    def __init__(self, issuers: frozenset[str], claims: Claims) -> None:
        self._issuers = issuers
        self._claims = claims

    def inbound(self, call: Call) -> None:
        """Check the caller. Raises Refused."""
        self.check(call.caller)

    def check(self, principal: Principal) -> None:
        """Raise Refused unless this is a token that the route accepts.

        Called for each call, and when an open connection presents a newer credential.
        """
        token = principal.token
        if token is None:
            raise Refused(
                Reason.UNAUTHENTICATED,
                "This route does not accept API keys; authenticate with a token of an issuer.",
                cause="token-needed",
            )
        if self._issuers and token.issuer.name not in self._issuers:
            raise Refused(
                Reason.FORBIDDEN, "This route does not accept tokens of this issuer.", cause="token-issuer-refused"
            )
        for name, accepted in self._claims:
            if not _matches(token.claims.get(name), accepted):
                detail = f"The claim `{name}` of the token does not have a value that this route accepts."
                raise Refused(Reason.FORBIDDEN, detail, cause="token-claim-refused")


def _values(value: Any, at: str) -> list[Scalar]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, Scalar) for each in values):
        raise BadOption(at, "Must be a string, a number, true or false, or a list of these.")
    return values


def _matches(claim: Any, accepted: list[Scalar]) -> bool:
    values = claim if isinstance(claim, list) else [claim]
    return any(_is_equal(value, other) for value in values for other in accepted)


def _is_equal(value: Any, other: Scalar) -> bool:
    # In Python True == 1; in JSON they differ.
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)
