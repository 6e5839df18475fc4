"""The protocol of OpenID Connect (Core 1.0), authorization code flow with PKCE (RFC 7636): who has signed in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import jwt

from accounts.oidc import http
from accounts.oidc.http import ProviderFailed
from accounts.oidc.provider_settings import ProviderSettings, is_safe_url
from gateway.credentials import public_keys
from gateway.credentials.public_keys import InvalidKeySet, PublicKey

KEPT_S = 600.0
"""How long the provider's documents are used before they are fetched again."""
REFETCH_S = 30.0
"""How often its keys are fetched again for an unknown key."""
AWAY_S = 3.0
"""How long nothing is fetched after a failure: requests of strangers must not wait for an unavailable provider."""
LEEWAY_S = 60
TOKEN_MAX_CHARS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Flow:
    """The secrets of one sign-in, which only the browser that began it has."""

    state: str
    nonce: str
    verifier: str


class Provider:
    """One provider, with its documents. Safe for threads."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._documents: dict[str, tuple[float, Any]] = {}
        self._away_until = float("-inf")

    def authorization_url(self, flow: Flow) -> str:
        """Return the URL at the provider where the operator signs in. Raises ProviderFailed."""
        endpoint = self._endpoint("authorization_endpoint")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.settings.client_id,
                "redirect_uri": self.settings.redirect_uri,
                "scope": " ".join(self.settings.scopes),
                "state": flow.state,
                "nonce": flow.nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def claims(self, code: str, flow: Flow) -> dict[str, Any]:
        """Exchange a code, and return the claims of the ID token, which is validated. Raises ProviderFailed."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_uri,
            "code_verifier": flow.verifier,
            "client_id": self.settings.client_id,
        }
        authorization = None
        if self.settings.client_secret:
            if self._uses_post():
                fields["client_secret"] = self.settings.client_secret
            else:
                del fields["client_id"]
                pair = f"{quote(self.settings.client_id, safe='')}:{quote(self.settings.client_secret, safe='')}"
                authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        answer = http.post(self._endpoint("token_endpoint"), fields, authorization)
        token = answer.get("id_token")
        if not isinstance(token, str) or len(token) > TOKEN_MAX_CHARS:
            raise ProviderFailed("the answer has no ID token")
        return self._validated(token, flow.nonce)

    def _validated(self, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token (Core 1.0, 3.1.3.7). Raises ProviderFailed."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in self.settings.algorithms:
                raise ProviderFailed("the ID token is signed with an algorithm that is not allowed")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(header.get("kid"), algorithm).prepared(algorithm),
                algorithms=[algorithm],
                audience=self.settings.client_id,
                issuer=self.settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except (jwt.PyJWTError, InvalidKeySet, ValueError, TypeError) as error:
            raise ProviderFailed(f"the ID token is not valid: {type(error).__name__}") from None
        self._check_claims(claims, nonce)
        return claims

    def _check_claims(self, claims: dict[str, Any], nonce: str) -> None:
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise ProviderFailed("the ID token belongs to another sign-in")
        audience = claims["aud"]
        is_shared = isinstance(audience, list) and len(audience) > 1
        if (is_shared or "azp" in claims) and claims.get("azp") != self.settings.client_id:
            raise ProviderFailed("the ID token was issued to another client")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise ProviderFailed("the ID token has no valid subject")

    def _key(self, kid: str | None, algorithm: str) -> PublicKey:
        """Return the key that signed a token; the keys are fetched again if it is unknown. Raises ProviderFailed."""
        for at_most_s in (KEPT_S, REFETCH_S):
            keys = self._fetched("jwks", self._endpoint("jwks_uri"), public_keys.read, at_most_s)
            fitting = [key for key in keys if key.fits(algorithm) and (kid is None or key.kid == kid)]
            if len(fitting) == 1:
                return fitting[0]  # type: ignore[no-any-return]
        raise ProviderFailed("the ID token is signed with no known key")

    def _endpoint(self, name: str) -> str:
        url = self._metadata().get(name)
        if not isinstance(url, str) or not is_safe_url(url):
            raise ProviderFailed(f"its configuration has no valid {name}")
        return url

    def _metadata(self) -> dict[str, Any]:
        """Return the provider's configuration, which must be of this very issuer. Raises ProviderFailed."""
        url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata: dict[str, Any] = self._fetched("configuration", url, http.parsed, KEPT_S)
        if metadata.get("issuer") != self.settings.issuer:
            raise ProviderFailed("its configuration names another issuer")
        return metadata

    def _uses_post(self) -> bool:
        methods = self._metadata().get("token_endpoint_auth_methods_supported")
        return isinstance(methods, list) and "client_secret_basic" not in methods

    def _fetch(self, url: str, parse: Any) -> Any:
        """Return a parsed document; for a while after a failure nothing is fetched. Raises ProviderFailed."""
        if time.monotonic() < self._away_until:
            raise ProviderFailed("it has just failed to answer")
        try:
            return parse(http.get(url))
        except (ProviderFailed, InvalidKeySet) as error:
            self._away_until = time.monotonic() + AWAY_S
            raise ProviderFailed(str(error)) from None

    def _fetched(self, name: str, url: str, parse: Any, at_most_s: float) -> Any:
        """Return a parsed document that is at most this old. Raises ProviderFailed."""
        with self._lock:
            fetched_at, document = self._documents.get(name, (float("-inf"), None))
            if time.monotonic() - fetched_at >= at_most_s:
                document = self._fetch(url, parse)
                self._documents[name] = (time.monotonic(), document)
            return document
