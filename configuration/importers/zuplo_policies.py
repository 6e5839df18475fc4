"""Zuplo's policies as ours: by their types, with the options that ``config/policies.json`` gives their instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.references import Path, mapping, self_contained
from configuration.yaml_documents import Document, DocumentError

IGNORED = frozenset(
    {
        "allowUnauthenticatedRequests", "authHeader", "authScheme", "bucketId", "bucketName", "cacheTtlSeconds",
        "disableAutomaticallyAddingKeyHeaderToOpenApi", "headerMode", "includeRequestInLogs", "logLevel", "mode",
        "oAuthResourceMetadataEnabled", "subPropertyName", "throwOnFailure", "trustContentLengthHeader",
    }
)  # fmt: skip
"""Options that say how Zuplo works inside, or what is so here anyway."""
MODES = {"reject-and-log": "enforce", "reject-only": "enforce", "log-only": "shadow"}


Ours = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """An operation of an OpenAPI document, which names policies for its route, and describes its bodies."""

    document: Document
    node: dict[str, Any]
    path: Path


@dataclass(frozen=True)
class Instance:
    """A policy as a project configures it: its options, where these stand, and the operation whose route names it."""

    name: str
    options: dict[str, Any]
    document: Document
    path: Path
    operation: Operation

    def error(self, message: str, *more: str | int) -> DocumentError:
        """Make an error about it."""
        return self.document.error(f"the policy {self.name}: {message}", *self.path, *more)

    def checked(self, *known: str) -> dict[str, Any]:
        """Give its options. Raises DocumentError for one that would be lost."""
        for option in self.options:
            if option not in known and option not in IGNORED:
                raise self.error(f"the option {option} is not read", "handler", "options", option)
        return {option: value for option, value in self.options.items() if option in known}

    def needed(self, option: str) -> Any:
        """Give an option that it cannot do without. Raises DocumentError."""
        if option not in self.options:
            where = "its options stand in config/policies.json: name that file too, with --policies"
            raise self.error(f"needs the option {option}; {where}")
        return self.options[option]


class Definitions:
    """The policies and CORS policies that a project's ``policies.json`` defines."""

    def __init__(self, document: Document | None) -> None:
        self._document = document
        data = document.data if document is not None and isinstance(document.data, Mapping) else {}
        self._policies = _by_name(data, "policies")
        self._cors = _by_name(data, "corsPolicies")
        self.issuers: dict[str, Imported] = {}
        """The issuers whose tokens the policies trust that were read so far."""

    def policy(self, name: str, side: str, at: Path, operation: Operation) -> list[Ours]:
        """Give our policies for one that a route names at ``at``. Raises DocumentError, also for what is unknown."""
        number, defined = self._policies.get(name, (0, {}))
        document, path = operation.document, at
        if defined and self._document is not None:
            document, path = self._document, ("policies", number)
        type_ = str(defined.get("policyType", name))
        if type_ not in READERS:
            said = (
                f"the policy {name} is not known; there are {', '.join(READERS)}. Take it out and add ours afterwards"
            )
            raise document.error(said, *path)
        reader = READERS[type_]
        if reader.side != side:
            raise operation.document.error(f"the policy {name} is {reader.side}, not {side}", *at)
        handler = defined.get("handler")
        options = handler.get("options") if isinstance(handler, Mapping) else None
        instance = Instance(name, dict(options) if isinstance(options, Mapping) else {}, document, path, operation)
        found = reader.read(instance)
        if reader.ours == "jwt" and instance.options:
            self.issuers.setdefault(name, Imported("issuers", _issuer(instance), at))
        return found

    def origins(self, name: str) -> list[str] | None:
        """Give the origins that a CORS policy of the project allows; None where it is not defined."""
        _, defined = self._cors.get(name, (0, {}))
        allowed = defined.get("allowedOrigins")
        if isinstance(allowed, str):
            allowed = [origin.strip() for origin in allowed.split(",")]
        return [str(origin) for origin in allowed] if isinstance(allowed, list) else None


def _by_name(data: Mapping[str, Any], section: str) -> dict[str, tuple[int, dict[str, Any]]]:
    listed = data.get(section)
    return {
        str(entry.get("name")): (number, entry)
        for number, entry in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
    }


def _api_key(instance: Instance) -> list[Ours]:
    instance.checked()
    if instance.options.get("allowUnauthenticatedRequests"):
        raise instance.error("every route needs a key here: allowUnauthenticatedRequests cannot be true")
    return [{"type": "api-key"}]


def _jwt(instance: Instance) -> list[Ours]:
    if not instance.options:
        return [{"type": "jwt"}]
    instance.checked("issuer", "audience", "jwkUrl")
    if instance.options.get("allowUnauthenticatedRequests"):
        raise instance.error("every route needs a credential here: allowUnauthenticatedRequests cannot be true")
    return [{"type": "jwt", "options": {"issuers": [instance.name]}}]


def _issuer(instance: Instance) -> dict[str, Any]:
    """Give the issuer that the tokens of a policy come from; it bears the policy's name."""
    values = {"name": instance.name, "issuer": instance.needed("issuer"), "jwks_url": instance.needed("jwkUrl")}
    return values | {"audience": instance.needed("audience")}


def _rate_limit(instance: Instance) -> list[Ours]:
    known = ("rateLimitBy", "requestsAllowed", "timeWindowMinutes", "function")
    options = instance.checked(*known, "identifier")
    if not options:
        return [{"type": "rate-limit"}]
    if options.pop("identifier", None) is not None or (
        options.get("rateLimitBy") == "function" and "function" not in options
    ):
        raise instance.error("its function is not Python; name one that is as the option function, module:name")
    if options.get("rateLimitBy") == "function":
        return [{"type": "rate-limit", "options": {"rateLimitBy": "function", "function": options["function"]}}]
    return [{"type": "rate-limit", "options": options}]


def _ip_restriction(instance: Instance) -> list[Ours]:
    names = {"allow": "allow", "deny": "deny", "allowedIpAddresses": "allow", "blockedIpAddresses": "deny"}
    options = instance.checked(*names)
    if not options:
        instance.needed("allow")
    return [{"type": "ip-restriction", "options": {names[option]: value for option, value in options.items()}}]


def _size_limit(instance: Instance) -> list[Ours]:
    instance.checked("maxSizeInBytes")
    return [{"type": "request-size-limit", "options": {"max_bytes": instance.needed("maxSizeInBytes")}}]


def _validation(instance: Instance) -> list[Ours]:
    others = ("validateQueryParameters", "validatePathParameters", "validateHeaders")
    options = instance.checked("validateBody", *others)
    for option in others:
        if options.get(option, "none") != "none":
            raise instance.error(f"{option} is not read: bodies are validated here", "handler", "options", option)
    wanted = options.get("validateBody", "reject-only" if not options else "none")
    if wanted == "none":
        return []
    if wanted not in MODES:
        raise instance.error(f"validateBody is none of none, {', '.join(MODES)}", "handler", "options", "validateBody")
    schema = _schema_of(instance)
    return [] if schema is None else [{"type": "validate", "options": {"schema": schema}, "mode": MODES[wanted]}]


def _schema_of(instance: Instance) -> dict[str, Any] | None:
    """Give the schema of the operation's JSON body; None where it describes none."""
    document, at = instance.operation.document, instance.operation.path
    body, at = mapping(document, instance.operation.node.get("requestBody", {}), (*at, "requestBody"))
    content, at = mapping(document, body.get("content", {}), (*at, "content"))
    for name, node in content.items():
        if str(name).startswith("application/json"):
            media, where = mapping(document, node, (*at, name))
            if "schema" in media:
                schema, there = mapping(document, media["schema"], (*where, "schema"))
                return self_contained(document, schema, there)
    return None


def _set_headers(on: str) -> Callable[[Instance], list[Ours]]:
    def read(instance: Instance) -> list[Ours]:
        instance.checked("headers")
        headers: dict[str, Any] = {}
        for number, header in enumerate(_listed(instance)):
            if not isinstance(header, Mapping) or not isinstance(header.get("name"), str) or "value" not in header:
                raise instance.error("a header has a name and a value", "handler", "options", "headers", number)
            if header.get("overwrite") is False:
                raise instance.error("overwrite cannot be false: what is set here replaces what was there")
            headers[header["name"]] = str(header["value"])
        return [{"type": "set-headers", "options": {"headers": headers, "on": on}}]

    return read


def _remove_headers(on: str) -> Callable[[Instance], list[Ours]]:
    def read(instance: Instance) -> list[Ours]:
        instance.checked("headers")
        return [{"type": "remove-headers", "options": {"headers": _listed(instance), "on": on}}]

    return read


def _listed(instance: Instance) -> list[Any]:
    headers = instance.needed("headers")
    if not isinstance(headers, list):
        raise instance.error("headers is a list", "handler", "options", "headers")
    return headers


def _custom(on: str) -> Callable[[Instance], list[Ours]]:
    def read(instance: Instance) -> list[Ours]:
        function = instance.options.get("function")
        if function is None:
            said = "its code is not Python; write it as a function and name that as the option function, module:name"
            raise instance.error(said)
        own = {name: value for name, value in instance.options.items() if name not in ("function", "body")}
        options = {"function": function, "on": on, "body": bool(instance.options.get("body")), "options": own}
        return [{"type": "custom", "options": options}]

    return read


@dataclass(frozen=True)
class Reader:
    """How a type of Zuplo's is read, what it is here, and which side of the call it is on."""

    ours: str
    read: Callable[[Instance], list[Ours]]
    side: str = "inbound"


READERS: Mapping[str, Reader] = {
    "api-key-inbound": Reader("api-key", _api_key),
    "api-key-auth-inbound": Reader("api-key", _api_key),
    "open-id-jwt-auth-inbound": Reader("jwt", _jwt),
    "rate-limit-inbound": Reader("rate-limit", _rate_limit),
    "rate-limiting-inbound": Reader("rate-limit", _rate_limit),
    "ip-restriction-inbound": Reader("ip-restriction", _ip_restriction),
    "ip-address-restriction-inbound": Reader("ip-restriction", _ip_restriction),
    "request-size-limit-inbound": Reader("request-size-limit", _size_limit),
    "request-validation-inbound": Reader("validate", _validation),
    "set-headers-inbound": Reader("set-headers", _set_headers("request")),
    "set-headers-outbound": Reader("set-headers", _set_headers("response"), "outbound"),
    "remove-headers-inbound": Reader("remove-headers", _remove_headers("request")),
    "remove-headers-outbound": Reader("remove-headers", _remove_headers("response"), "outbound"),
    "custom-code-inbound": Reader("custom", _custom("inbound")),
    "custom-code-outbound": Reader("custom", _custom("outbound"), "outbound"),
}
