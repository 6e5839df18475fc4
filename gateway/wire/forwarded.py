"""The names by which a client reached the gateway, and the fields that report them to an upstream (RFC 7239)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.wire.header_fields import Headers

DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class PublicName:
    """The address of a route as the client knows it."""

    scheme: str
    host: str
    """The value of ``Host``; empty if the client sent none (HTTP/1.0)."""
    port: str
    prefix: str
    """What the path begins with for the client and not for the upstream, such as ``/app``; empty: nothing."""

    @classmethod
    def of(cls, scheme: str, host: str, port: str, prefix: str) -> PublicName:
        """Return the name; without a port, it is that of the host, or else of the scheme."""
        _, colon, own_port = host.rpartition(":")
        if colon and not own_port.endswith("]"):
            return cls(scheme, host, own_port, prefix)
        port = port or DEFAULT_PORTS.get(scheme, "")
        is_default = port == DEFAULT_PORTS.get(scheme)
        return cls(scheme, host if is_default or not host else f"{host}:{port}", port, prefix)

    @property
    def origin(self) -> str:
        """What absolute URLs begin with; empty without a host."""
        return f"{self.scheme}://{self.host}" if self.host else ""


def forwarded_fields(ip: str, name: PublicName) -> Headers:
    """Return ``Forwarded`` and the ``X-Forwarded-*`` fields for a client of an address."""
    fields = [("x-forwarded-for", ip), ("x-forwarded-proto", name.scheme), ("x-forwarded-port", name.port)]
    parts = [f"for={_node(ip)}"]
    if name.host:
        fields.append(("x-forwarded-host", name.host))
        parts.append(f"host={_value(name.host)}")
    if name.prefix:
        fields.append(("x-forwarded-prefix", name.prefix))
    fields.append(("forwarded", ";".join([*parts, f"proto={name.scheme}"])))
    return [(field.encode(), value.encode("latin-1")) for field, value in fields]


def _node(ip: str) -> str:
    """Return an address as a node name: IPv6 in brackets, and therefore quoted (RFC 7239 6)."""
    return f'"[{ip}]"' if ":" in ip else _value(ip)


def _value(text: str) -> str:
    """Return a value as a token, or else quoted; a host and an address hold no character that needs escaping."""
    return text if text.replace("-", "").replace(".", "").replace("_", "").isalnum() else f'"{text}"'
