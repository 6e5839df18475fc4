"""Convert Zuplo's policies by their types, with the options of their instances in ``config/policies.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.options import Options, Secret
from configuration.importers.references import Path, mapping, self_contained
from configuration.importers.report import Report
from configuration.importers.variables import has_secret, resolved
from configuration.yaml_documents import Document, DocumentError
from gateway.policies.placeholder import PLACEHOLDER

_CREDENTIAL = re.compile(
    r"(?:proxy-)?authorization|x-auth|.*(?:token|secret|password|credential|(?:api|access|auth|subscription)-?key)",
    re.IGNORECASE,
)
"""Names of headers that hold a credential."""
IGNORED = frozenset(
    {
        "allowUnauthenticatedRequests", "authHeader", "authScheme", "bucketId", "bucketName", "cacheTtlSeconds",
        "disableAutomaticallyAddingKeyHeaderToOpenApi", "headerMode", "includeRequestInLogs", "logLevel", "mode",
        "oAuthResourceMetadataEnabled", "subPropertyName", "throwOnFailure", "trustContentLengthHeader",
    }
)  # fmt: skip
"""Options that concern Zuplo's internals, or what this gateway does anyway."""
MODES = {"reject-and-log": "enforce", "reject-only": "enforce", "log-only": "shadow"}


Converted = dict[str, Any]
"""A policy of a route."""


@dataclass(frozen=True)
class Operation:
    """An operation of an OpenAPI document, with the policies of its route and the schemas of its bodies."""

    document: Document
    node: dict[str, Any]
    path: Path
    credentials: list[dict[str, str]] = field(default_factory=list)
    """The credential of its upstream that its policies set: a header and its value, or none."""


@dataclass(frozen=True)
class Instance:
    """A policy as a project configures it: its options, their place, and the operation whose route has it."""

    name: str
    options: dict[str, Any]
    document: Document
    path: Path
    operation: Operation

    def error(self, message: str, *more: str | int) -> DocumentError:
        """Return an error with the name and the place of the policy."""
        return self.document.error(f"the policy {self.name}: {message}", *self.path, *more)

    def supported(self, *names: str) -> dict[str, Any]:
        """Return the options with these names. Raises DocumentError for any other that is not ignored."""
        for option in self.options:
            if option not in names and option not in IGNORED:
                raise self.error(f"the option {option} is not supported", "handler", "options", option)
        return {option: value for option, value in self.options.items() if option in names}

    def required(self, option: str) -> Any:
        """Return a required option. Raises DocumentError if it is missing."""
        if option not in self.options:
            raise self.error(f"needs the option {option}; pass config/policies.json, which has it, with --policies")
        return self.options[option]


class Definitions:
    """The policies and CORS policies that a project's ``policies.json`` defines."""

    def __init__(self, document: Document | None, options: Options, report: Report) -> None:
        self._document = document
        self.options = options
        self.report = report
        data = document.data if document is not None and isinstance(document.data, Mapping) else {}
        self._policies = _by_name(data, "policies")
        self._cors = _by_name(data, "corsPolicies")
        self.issuers: dict[str, Imported] = {}
        """The issuers that the policies converted so far trust, by the policy's name."""

    def policy(
        self, name: str, side: str, at: Path, operation: Operation, within: tuple[str, ...] = ()
    ) -> list[Converted]:
        """Return the policies for one that a route has at ``at``: a placeholder for one that cannot be converted.

        ``within`` are the composites that it is a part of.
        """
        try:
            if str(self._policies.get(name, (0, {}))[1].get("policyType")) == f"composite-{side}":
                return self._parts(name, side, at, operation, within)
            return self._converted(name, side, at, operation)
        except DocumentError as error:
            self.report.add_placeholder(error)
            _, defined = self._policies.get(name, (0, {}))
            return [{"type": PLACEHOLDER, "options": {"name": name, "stands_for": _description(defined)}}]

    def _parts(self, name: str, side: str, at: Path, operation: Operation, within: tuple[str, ...]) -> list[Converted]:
        """Return the policies that a composite consists of."""
        handler = self._policies[name][1].get("handler")
        options = handler.get("options") if isinstance(handler, Mapping) else None
        parts = options.get("policies") if isinstance(options, Mapping) else None
        if not isinstance(parts, list) or name in within:
            raise operation.document.error(f"the policy {name} must list other policies", *at)
        own = (*within, name)
        return [policy for part in parts for policy in self.policy(str(part), side, at, operation, own)]

    def _converted(self, name: str, side: str, at: Path, operation: Operation) -> list[Converted]:
        number, defined = self._policies.get(name, (0, {}))
        document, path = operation.document, at
        if defined and self._document is not None:
            document, path = self._document, ("policies", number)
        type_ = str(defined.get("policyType", name))
        if type_ not in CONVERTERS:
            supported = ", ".join(CONVERTERS)
            message = f"the policy {name} is not supported; these are: {supported}"
            hint = "" if self._policies else "; pass config/policies.json, which defines it, with --policies"
            raise document.error(message + hint, *path)
        converter = CONVERTERS[type_]
        if converter.side != side:
            raise operation.document.error(f"the policy {name} is {converter.side}, not {side}", *at)
        handler = defined.get("handler")
        options = handler.get("options") if isinstance(handler, Mapping) else None
        known = resolved(options, document, path, self.options) if isinstance(options, Mapping) else {}
        instance = Instance(name, known, document, path, operation)
        if instance.options.pop("allowUnauthenticatedRequests", False) and converter.type in ("api-key", "jwt"):
            self.report.skip(instance.error("allowUnauthenticatedRequests is ignored: every route needs a credential"))
        converted = converter.convert(instance)
        if has_secret(converted) or (converter.type == "jwt" and has_secret(instance.options)):
            raise instance.error("has a secret of --env, which only a header of requests to the upstream can have")
        if converter.type == "jwt" and instance.options:
            self.issuers.setdefault(name, Imported("issuers", _issuer(instance), at))
        return converted

    def origins(self, name: str) -> list[str] | None:
        """Return the origins that a CORS policy of the project allows, or None if it is not defined.

        Raises DocumentError for a variable without a value, and for one that is a secret.
        """
        number, defined = self._cors.get(name, (0, {}))
        allowed = defined.get("allowedOrigins")
        if self._document is not None:
            at: Path = ("corsPolicies", number, "allowedOrigins")
            allowed = resolved(allowed, self._document, at, self.options)
            if has_secret(allowed):
                raise self._document.error(f"an origin of the CORS policy {name} is a secret", *at)
        if isinstance(allowed, str):
            allowed = [origin.strip() for origin in allowed.split(",")]
        return [str(origin) for origin in allowed] if isinstance(allowed, list) else None


def _description(defined: Mapping[str, Any]) -> str:
    """Return the type of a policy and its module, as far as they are known."""
    handler = defined.get("handler")
    module = handler.get("module") if isinstance(handler, Mapping) else None
    return ", ".join(str(part) for part in (defined.get("policyType"), module) if part)[:300]


def _by_name(data: Mapping[str, Any], section: str) -> dict[str, tuple[int, dict[str, Any]]]:
    listed = data.get(section)
    return {
        str(entry.get("name")): (number, entry)
        for number, entry in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
    }


def _api_key(instance: Instance) -> list[Converted]:
    instance.supported()
    return [{"type": "api-key"}]


def _jwt(instance: Instance) -> list[Converted]:
    if not instance.options:
        return [{"type": "jwt"}]
    instance.supported("issuer", "audience", "jwkUrl", "auth0Domain", "clientId")
    return [{"type": "jwt", "options": {"issuers": [instance.name]}}]


def _issuer(instance: Instance) -> dict[str, Any]:
    """Return the issuer of the tokens that a policy accepts; it has the name of the policy."""
    if domain := instance.options.get("auth0Domain"):
        issuer, jwks_url = f"https://{domain}/", f"https://{domain}/.well-known/jwks.json"
    else:
        issuer, jwks_url = instance.required("issuer"), instance.required("jwkUrl")
    audience = instance.required("audience")
    return {"name": instance.name, "issuer": issuer, "jwks_url": jwks_url, "audience": audience}


def _rate_limit(instance: Instance) -> list[Converted]:
    names = ("rateLimitBy", "requestsAllowed", "timeWindowMinutes", "function")
    options = instance.supported(*names, "identifier")
    if not options:
        return [{"type": "rate-limit"}]
    if options.pop("identifier", None) is not None or (
        options.get("rateLimitBy") == "function" and "function" not in options
    ):
        raise instance.error("its function is not Python; set the option function to a Python one, as module:name")
    if options.get("rateLimitBy") == "function":
        return [{"type": "rate-limit", "options": {"rateLimitBy": "function", "function": options["function"]}}]
    return [{"type": "rate-limit", "options": options}]


def _ip_restriction(instance: Instance) -> list[Converted]:
    names = {"allow": "allow", "deny": "deny", "allowedIpAddresses": "allow", "blockedIpAddresses": "deny"}
    options = instance.supported(*names)
    if not options:
        instance.required("allow")
    return [{"type": "ip-restriction", "options": {names[option]: value for option, value in options.items()}}]


def _size_limit(instance: Instance) -> list[Converted]:
    instance.supported("maxSizeInBytes")
    return [{"type": "request-size-limit", "options": {"max_bytes": instance.required("maxSizeInBytes")}}]


def _validation(instance: Instance) -> list[Converted]:
    others = ("validateQueryParameters", "validatePathParameters", "validateHeaders")
    options = instance.supported("validateBody", *others)
    for option in others:
        if options.get(option, "none") != "none":
            raise instance.error(f"{option} is not supported: only bodies are validated", "handler", "options", option)
    mode = options.get("validateBody", "reject-only" if not options else "none")
    if mode == "none":
        return []
    if mode not in MODES:
        raise instance.error(
            f"validateBody must be one of none, {', '.join(MODES)}", "handler", "options", "validateBody"
        )
    schema = _schema_of(instance)
    return [] if schema is None else [{"type": "validate", "options": {"schema": schema}, "mode": MODES[mode]}]


def _schema_of(instance: Instance) -> dict[str, Any] | None:
    """Return the schema of the operation's JSON body, or None if it has none."""
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


def _set_headers(on: str) -> Callable[[Instance], list[Converted]]:
    def convert(instance: Instance) -> list[Converted]:
        instance.supported("headers")
        headers: dict[str, Any] = {}
        credentials: list[dict[str, str]] = []
        for number, header in enumerate(_listed(instance)):
            if not isinstance(header, Mapping) or not isinstance(header.get("name"), str) or "value" not in header:
                raise instance.error("a header must have a name and a value", "handler", "options", "headers", number)
            if has_secret(header["name"]) or isinstance(header["value"], (list, Mapping)):
                raise instance.error("a header has a plain name, and one value", "handler", "options")
            if header.get("overwrite") is False:
                raise instance.error("overwrite must not be false: set-headers replaces existing headers")
            name, value = header["name"], header["value"]
            if on == "request" and (isinstance(value, Secret) or _CREDENTIAL.fullmatch(name)):
                credentials.append({"header": name, "value": str(value)})
            else:
                headers[name] = value if isinstance(value, str) else str(value)
        _add_credentials(instance, credentials)
        return [{"type": "set-headers", "options": {"headers": headers, "on": on}}] if headers else []

    return convert


def _add_credentials(instance: Instance, credentials: list[dict[str, str]]) -> None:
    """Make these headers the credential of the upstream. Raises DocumentError for more than one."""
    known = instance.operation.credentials
    new = [credential for credential in credentials if credential not in known]
    if len(known) + len(new) > 1:
        raise instance.error("a route has one credential of its upstream, and this is another", "handler", "options")
    known.extend(new)


def _remove_headers(on: str) -> Callable[[Instance], list[Converted]]:
    def convert(instance: Instance) -> list[Converted]:
        instance.supported("headers")
        return [{"type": "remove-headers", "options": {"headers": _listed(instance), "on": on}}]

    return convert


def _listed(instance: Instance) -> list[Any]:
    headers = instance.required("headers")
    if not isinstance(headers, list):
        raise instance.error("headers must be a list", "handler", "options", "headers")
    return headers


def _custom(on: str) -> Callable[[Instance], list[Converted]]:
    def convert(instance: Instance) -> list[Converted]:
        function = instance.options.get("function")
        if function is None:
            raise instance.error("its code is not Python; set the option function to a Python function, as module:name")
        own = {name: value for name, value in instance.options.items() if name not in ("function", "body")}
        options = {"function": function, "on": on, "body": bool(instance.options.get("body")), "options": own}
        return [{"type": "custom", "options": options}]

    return convert


@dataclass(frozen=True)
class Converter:
    """How a type of Zuplo's policies is converted: to which type, by which function, and on which side of a call."""

    type: str
    convert: Callable[[Instance], list[Converted]]
    side: str = "inbound"


CONVERTERS: Mapping[str, Converter] = {
    "api-key-inbound": Converter("api-key", _api_key),
    "api-key-auth-inbound": Converter("api-key", _api_key),
    "open-id-jwt-auth-inbound": Converter("jwt", _jwt),
    "auth0-jwt-auth-inbound": Converter("jwt", _jwt),
    "rate-limit-inbound": Converter("rate-limit", _rate_limit),
    "rate-limiting-inbound": Converter("rate-limit", _rate_limit),
    "ip-restriction-inbound": Converter("ip-restriction", _ip_restriction),
    "ip-address-restriction-inbound": Converter("ip-restriction", _ip_restriction),
    "request-size-limit-inbound": Converter("request-size-limit", _size_limit),
    "request-validation-inbound": Converter("validate", _validation),
    "set-headers-inbound": Converter("set-headers", _set_headers("request")),
    "set-headers-outbound": Converter("set-headers", _set_headers("response"), "outbound"),
    "remove-headers-inbound": Converter("remove-headers", _remove_headers("request")),
    "remove-headers-outbound": Converter("remove-headers", _remove_headers("response"), "outbound"),
    "custom-code-inbound": Converter("custom", _custom("inbound")),
    "custom-code-outbound": Converter("custom", _custom("outbound"), "outbound"),
}
