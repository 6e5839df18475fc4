"""The settings of the OpenID Connect provider. Imports no Django, whose settings contain them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.snapshot.documents import ALGORITHMS

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, eq=False)
class ProviderSettings:
    """One provider, who may sign in with it, and which rights its groups give."""

    issuer: str
    client_id: str
    client_secret: str
    name: str
    """What the button of the sign-in page calls it."""
    redirect_uri: str
    scopes: tuple[str, ...]
    algorithms: tuple[str, ...]
    groups_claim: str
    allowed_groups: frozenset[str]
    allowed_emails: frozenset[str]
    """In lower case: whole addresses, and domains such as ``@example.com``."""
    superuser_groups: frozenset[str]
    groups: Mapping[str, str]
    """Groups of the provider, and the groups of operators that their members belong to."""
    creates_accounts: bool
    links_by_email: bool

    def faults(self) -> list[str]:
        """Return what is wrong with the settings."""
        faults = []
        if not is_safe_url(self.issuer):
            faults.append("OIDC_ISSUER must be an https:// URL.")
        if not self.client_id:
            faults.append("OIDC_CLIENT_ID is not set.")
        if not self.algorithms or not set(self.algorithms) <= set(ALGORITHMS):
            faults.append(f"OIDC_ALGORITHMS must be some of {', '.join(ALGORITHMS)}.")
        if "openid" not in self.scopes:
            faults.append("OIDC_SCOPES must contain openid.")
        if not self.allowed_groups and not self.allowed_emails:
            faults.append("OIDC_ALLOWED_GROUPS or OIDC_ALLOWED_EMAILS must name who may sign in.")
        return faults


def is_safe_url(url: str) -> bool:
    """Return whether a URL may be called with credentials: by https, or on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_local = parts.scheme == "http" and parts.hostname in LOOPBACK
    return bool(parts.hostname) and parts.username is None and (parts.scheme == "https" or is_local)
