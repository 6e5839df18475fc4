"""Import AsyncAPI 2.x and 3.x: every channel of the document, and the rights that its application needs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from configuration.importers.addresses import parameters_in, shape_of
from configuration.importers.described_channels import (
    DescribedChannel,
    Placed,
    described_channels,
    version_of,
)
from configuration.importers.imported import Imported, RegisteredSchema
from configuration.importers.messages import content_type_of, has_schema, registered_schema, schema_of
from configuration.importers.options import Options
from configuration.importers.references import Path, follow, mapping, with_traits
from configuration.importers.report import Report
from configuration.yaml_documents import Document, DocumentError
from gateway.protocol import Protocol
from gateway.snapshot.right import Right, Verb
from gateway.wire.content_types import JSON

TITLE_MAX_CHARS = 200
PROTOCOLS = {
    **dict.fromkeys(("http", "https"), Protocol.HTTP),
    "sse": Protocol.SSE,
    **dict.fromkeys(("ws", "wss"), Protocol.WEBSOCKET),
    **dict.fromkeys(("mqtt", "mqtts", "secure-mqtt", "mqtt5"), Protocol.MQTT),
    **dict.fromkeys(("amqp", "amqps"), Protocol.AMQP),
}
"""The gateway's protocol for each protocol of servers and bindings. Others, such as Kafka, are ignored."""
_ACTIONS = {"send": (Verb.PUBLISH, Verb.SUBSCRIBE), "receive": (Verb.SUBSCRIBE, Verb.PUBLISH)}
"""The right that an operation of the application needs, and the one that its reply needs."""
_ACTIONS_2 = {"publish": Verb.SUBSCRIBE, "subscribe": Verb.PUBLISH}
"""In 2.x an operation is from the view of the application's peers: it subscribes to what they publish."""


DEFAULTS = Options()


def is_asyncapi(data: Any) -> bool:
    """Return whether the data is an AsyncAPI document."""
    return isinstance(data, dict) and "asyncapi" in data


def channels(document: Document, options: Options, report: Report) -> list[Imported]:
    """Return the channels; those of one address are merged. Raises DocumentError if there are none.

    The protocols of a channel are those of its own servers and bindings, and are left open if it has none. Channels
    that mean nothing here are added to the report.
    """
    operations = _operations(document, report)
    by_shape: dict[str, list[DescribedChannel]] = {}
    for channel in described_channels(document, options, report):
        by_shape.setdefault(shape_of(channel.address), []).append(channel)
    imported = []
    for same in by_shape.values():
        try:
            imported.append(_imported(document, same, operations, report))
        except DocumentError as error:
            report.skip(error)
    if not imported:
        raise report.nothing(document, "describes no channels", "channels")
    return imported


def rights(document: Document, options: Options = DEFAULTS) -> list[Right]:
    """Return the rights that the operations of the described application need. Raises DocumentError."""
    if version_of(document).startswith("2."):
        needed = list(_rights_2(document, options))
    else:
        addresses: dict[Path, list[str]] = {}
        for channel in described_channels(document, options, Report()):
            addresses.setdefault(channel.path, []).append(channel.address)
        needed = [Right(verb, address) for verb, path in _rights_3(document) for address in addresses.get(path, [])]
    return list(dict.fromkeys(needed))


def _imported(
    document: Document, same: list[DescribedChannel], operations: dict[Path, list[Placed]], report: Report
) -> Imported:
    """Return one channel for all that have the same address: what any of them accepts is accepted."""
    same = list({channel.path: channel for channel in same}.values())
    first = same[0]
    node = {name: value for channel in reversed(same) for name, value in channel.node.items()}
    groups = [_messages(document, channel, report) for channel in same]
    messages = [message for group in groups for message in group] if all(groups) else []
    content_type, registered, schema = _content(document, first.address, node, messages, report)
    values = {"address": first.address, "schema": schema, "on_invalid": str(node.get("x-on-invalid", "dead-letter"))}
    bindings = [_bindings(document, channel, operations) for channel in same]
    optional = {
        "title": _title(node),
        "content_type": content_type if content_type != JSON else "",
        "parameters": _parameters(same),
        "protocols": node["x-protocols"] if "x-protocols" in node else _protocols(document, same, bindings, report),
        "retention": next(filter(None, map(_retention, repeat(document), same, bindings)), None),
    }
    return Imported(
        "channels", values | {name: value for name, value in optional.items() if value}, first.path, registered
    )


def _content(
    document: Document, address: str, node: dict[str, Any], messages: list[Placed], report: Report
) -> tuple[Any, RegisteredSchema | None, dict[str, Any] | None]:
    """Return the content type and the schema of a channel; no schema if it cannot be read, which is reported."""
    content_type = node.get("x-content-type", JSON)
    try:
        content_type = node.get("x-content-type", content_type_of(document, messages, report))
        if not has_schema(content_type):
            return content_type, None, None
        registered = registered_schema(document, messages)
        is_own = registered is not None and not registered.is_named
        schema = {"subject": f"{address}-value"} if is_own else schema_of(document, messages)
        return content_type, registered, schema
    except DocumentError as error:
        report.skip(DocumentError(f"{error}; the channel {address} is imported without its schema"))
        return content_type, None, None


def _messages(document: Document, channel: DescribedChannel, report: Report) -> list[Placed]:
    """Return the messages of a channel; none, so that it takes anything, if they cannot be read, which is reported."""
    find = _messages_2 if version_of(document).startswith("2.") else _messages_3
    try:
        return list(find(document, channel.node, channel.path))
    except DocumentError as error:
        report.skip(DocumentError(f"{error}; the channel {channel.address} is imported without its schema"))
        return []


def _parameters(same: list[DescribedChannel]) -> dict[str, Any]:
    """Return the parameters that all channels of one address restrict, by their names in the first one's address."""
    restricted = {}
    names = [parameters_in(channel.address) for channel in same]
    for name in same[0].enums:
        if name in names[0]:
            position = names[0].index(name)
            enums = [channel.enums.get(own[position], []) for channel, own in zip(same, names, strict=True)]
            if all(enums):
                restricted[name] = {"enum": list(dict.fromkeys(chain(*enums)))}
    return restricted


def _title(node: dict[str, Any]) -> str:
    if isinstance(title := node.get("title"), str) and title:
        return title[:TITLE_MAX_CHARS]
    texts = (node.get(name) for name in ("summary", "description"))
    text = next((text for text in texts if isinstance(text, str) and text), "")
    return " ".join(text.split())[:TITLE_MAX_CHARS]


def _protocols(
    document: Document, same: list[DescribedChannel], bindings: list[dict[str, Any]], report: Report
) -> list[str]:
    """Return the protocols of channels of one address; none, so that it takes each, if one of them has none."""
    each = [_protocols_of(document, *one, report) for one in zip(same, bindings, strict=True)]
    return list(dict.fromkeys(chain(*each))) if all(each) else []


def _protocols_of(document: Document, channel: DescribedChannel, bindings: dict[str, Any], report: Report) -> list[str]:
    try:
        servers, path = follow(document, channel.node.get("servers", []), (*channel.path, "servers"))
        if not isinstance(servers, list):
            raise document.error("servers must be a list of references", *path)
        names = [_protocol(document, server, (*path, number)) for number, server in enumerate(servers)]
    except DocumentError as error:
        report.skip(DocumentError(f"{error}; the channel {channel.address} is imported for every protocol"))
        return []
    return [PROTOCOLS[name].value for name in (*names, *bindings) if name in PROTOCOLS]


def _protocol(document: Document, server: Any, path: Path) -> str:
    """Return the protocol of a server that is referred to (3.x) or named (2.x)."""
    if isinstance(server, str):
        servers, _ = mapping(document, document.data.get("servers", {}), ("servers",))
        if server not in servers:
            raise document.error(f"there is no server {server} in `servers`", *path)
        server, path = servers[server], ("servers", server)
    described, path = mapping(document, server, path)
    return str(described.get("protocol", ""))


def _bindings(
    document: Document, channel: DescribedChannel, operations: dict[Path, list[Placed]]
) -> dict[str, dict[str, Any]]:
    """Return the bindings of a channel, of its operations and of their traits, by protocol."""
    is_2 = version_of(document).startswith("2.")
    own = _operations_2(document, channel) if is_2 else operations.get(channel.path, [])
    joined: dict[str, dict[str, Any]] = {}
    for node, path in [
        placed for one in [(channel.node, channel.path), *own] for placed in with_traits(document, *one)
    ]:
        bindings, where = mapping(document, node.get("bindings", {}), (*path, "bindings"))
        for protocol, binding in bindings.items():
            if not protocol.startswith("x-"):
                described, _ = mapping(document, binding, (*where, protocol))
                joined[protocol] = described | joined.get(protocol, {})
    return joined


def _operations(document: Document, report: Report) -> dict[Path, list[Placed]]:
    """Return the operations by the path of their channel; in 2.x they are in the channel."""
    by_channel: dict[Path, list[Placed]] = {}
    if version_of(document).startswith("2."):
        return by_channel
    operations, at = mapping(document, document.data.get("operations") or {}, ("operations",))
    for name, node in operations.items():
        try:
            operation, path = mapping(document, node, (*at, name))
            by_channel.setdefault(_channel_path(document, operation, path), []).append((operation, path))
        except DocumentError as error:
            report.skip(error)
    return by_channel


def _operations_2(document: Document, channel: DescribedChannel) -> list[Placed]:
    return [
        mapping(document, channel.node[action], (*channel.path, action))
        for action in _ACTIONS_2
        if action in channel.node
    ]


def _retention(document: Document, channel: DescribedChannel, bindings: dict[str, Any]) -> dict[str, Any]:
    """Return the retention from ``x-retention``, or from the configuration of a Kafka topic."""
    if "x-retention" in channel.node:
        return mapping(document, channel.node["x-retention"], (*channel.path, "x-retention"))[0]
    topic = bindings.get("kafka", {}).get("topicConfiguration")
    if not isinstance(topic, dict):
        return {}
    age_ms, size = _amount(topic.get("retention.ms")), _amount(topic.get("retention.bytes"))
    return ({"max_age_s": max(1, age_ms // 1000)} if age_ms else {}) | ({"max_bytes": size} if size else {})


def _amount(value: Any) -> int:
    """Return a limit, or 0 if there is none, which Kafka writes as -1."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _messages_3(document: Document, channel: dict[str, Any], path: Path) -> Iterator[Placed]:
    messages, path = mapping(document, channel.get("messages", {}), (*path, "messages"))
    for name, node in messages.items():
        yield mapping(document, node, (*path, name))


def _messages_2(document: Document, channel: dict[str, Any], path: Path) -> Iterator[Placed]:
    for action in _ACTIONS_2:
        if action not in channel:
            continue
        operation, where = mapping(document, channel[action], (*path, action))
        if "message" not in operation:
            continue
        message, where = mapping(document, operation["message"], (*where, "message"))
        if "oneOf" not in message:
            yield message, where
            continue
        choices, where = follow(document, message["oneOf"], (*where, "oneOf"))
        for number, node in enumerate(choices if isinstance(choices, list) else []):
            yield mapping(document, node, (*where, number))


def _rights_2(document: Document, options: Options) -> Iterator[Right]:
    for channel in described_channels(document, options, Report()):
        yield from (Right(verb, channel.address) for action, verb in _ACTIONS_2.items() if action in channel.node)


def _rights_3(document: Document) -> Iterator[tuple[Verb, Path]]:
    """Yield each right that an operation of AsyncAPI 3 needs, with the path of its channel."""
    for operation, path in _described_operations(document):
        action = operation.get("action")
        if not isinstance(action, str) or action not in _ACTIONS:
            raise document.error("an operation's action must be send or receive", *path, "action")
        verb, reply_verb = _ACTIONS[action]
        yield verb, _channel_path(document, operation, path)
        if "reply" in operation:
            reply, where = mapping(document, operation["reply"], (*path, "reply"))
            if "channel" in reply:
                yield reply_verb, _channel_path(document, reply, where)


def _described_operations(document: Document) -> Iterator[Placed]:
    operations, path = mapping(document, document.data.get("operations") or {}, ("operations",))
    for name, node in operations.items():
        yield mapping(document, node, (*path, name))


def _channel_path(document: Document, node: dict[str, Any], path: Path) -> Path:
    if "channel" not in node:
        raise document.error("has no channel; refer to one of `channels`", *path)
    return mapping(document, node["channel"], (*path, "channel"))[1]
