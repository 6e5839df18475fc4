"""Where an upstream is: its host, port and scheme."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Origin(NamedTuple):
    """The host, port and scheme of an upstream."""

    host: str
    port: int
    is_tls: bool

    @property
    def authority(self) -> str:
        """The host and port as written in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        return "https" if self.is_tls else "http"

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an http, https, ws or wss URL."""
        parts = urlsplit(url)
        is_tls = parts.scheme in ("https", "wss")
        return cls(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)
