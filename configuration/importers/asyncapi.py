"""AsyncAPI 2.x and 3.x: every channel that the document describes, and the rights that its application needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.messages import registered, schema_of
from configuration.importers.references import Path, follow, mapping
from configuration.yaml_documents import Document
from gateway.protocol import Protocol
from gateway.snapshot.right import Right, Verb

VERSIONS = ("2.", "3.")
TITLE_MAX_CHARS = 200
DOORS = {
    **dict.fromkeys(("http", "https"), Protocol.HTTP),
    "sse": Protocol.SSE,
    **dict.fromkeys(("ws", "wss"), Protocol.WEBSOCKET),
    **dict.fromkeys(("mqtt", "mqtts", "secure-mqtt", "mqtt5"), Protocol.MQTT),
    **dict.fromkeys(("amqp", "amqps"), Protocol.AMQP),
}
"""Protocols of servers and names of bindings, and the door that each is here. Others, as Kafka, are none of ours."""
_ACTIONS = {"send": (Verb.PUBLISH, Verb.SUBSCRIBE), "receive": (Verb.SUBSCRIBE, Verb.PUBLISH)}
"""The right that an operation of the application needs, and the one that its reply does."""
_ACTIONS_2 = {"publish": Verb.SUBSCRIBE, "subscribe": Verb.PUBLISH}
"""In 2.x an operation says what others may do: the application reads what they publish."""


Placed = tuple[dict[str, Any], Path]
"""A node, and where it lies."""


def is_asyncapi(data: Any) -> bool:
    """Say whether this is such a document."""
    return isinstance(data, dict) and "asyncapi" in data


def channels(document: Document) -> list[Imported]:
    """Give the channels. Raises DocumentError.

    A channel is open to the doors that its own servers and bindings name; where they name none, it has no say in that.
    """
    is_2 = _version(document).startswith("2.")
    operations = _operations_2(document) if is_2 else _operations_3(document)
    found = [
        _wanted(document, channel, operations.get(channel.path, []), is_2=is_2) for channel in _described(document)
    ]
    if not found:
        raise document.error("describes no channels", "channels")
    return found


def rights(document: Document) -> list[Right]:
    """Give the rights that the application which the document describes needs here, by its operations.

    Raises DocumentError.
    """
    if _version(document).startswith("2."):
        found = list(_rights_2(document))
    else:
        addresses = {channel.path: channel.address for channel in _described(document)}
        found = [Right(verb, addresses[path]) for verb, path in _asked(document) if path in addresses]
    return list(dict.fromkeys(found))


class _Channel:
    """One channel of the document: its node, where that is, and its address."""

    __slots__ = ("address", "node", "path")

    def __init__(self, document: Document, name: str, node: Any, path: Path, version: str) -> None:
        self.node, self.path = mapping(document, node, path)
        address = name if version.startswith("2.") else self.node.get("x-address", self.node.get("address"))
        if not isinstance(address, str) or not address:
            raise document.error(
                f"channel {name} has no address that is known beforehand; give it one, or leave the channel out",
                *self.path,
            )
        self.address: str = address


def _version(document: Document) -> str:
    version = str(document.data["asyncapi"])
    if not version.startswith(VERSIONS):
        raise document.error(f"AsyncAPI {version} is not read; 2.6 and 3.x are", "asyncapi")
    return version


def _described(document: Document) -> Iterator[_Channel]:
    version = _version(document)
    described, path = mapping(document, document.data.get("channels", {}), ("channels",))
    for name, node in described.items():
        yield _Channel(document, name, node, (*path, name), version)


def _wanted(document: Document, channel: _Channel, operations: list[Placed], *, is_2: bool) -> Imported:
    messages = list((_messages_2 if is_2 else _messages_3)(document, channel.node, channel.path))
    registers = registered(document, messages)
    is_named = registers is None or registers.is_named
    values = {
        "address": channel.address,
        "schema": schema_of(document, messages) if is_named else {"subject": f"{channel.address}-value"},
        "on_invalid": str(channel.node.get("x-on-invalid", "dead-letter")),
    }
    bindings = dict(_bindings(document, [(channel.node, channel.path), *operations]))
    found = {
        "title": _title(channel.node),
        "protocols": _protocols(document, channel, bindings),
        "retention": _retention(document, channel, bindings),
    }
    return Imported(
        "channels", values | {name: value for name, value in found.items() if value}, channel.path, registers
    )


def _title(node: dict[str, Any]) -> str:
    if isinstance(title := node.get("title"), str) and title:
        return title[:TITLE_MAX_CHARS]
    said = (node.get(name) for name in ("summary", "description"))
    text = next((text for text in said if isinstance(text, str) and text), "")
    return " ".join(text.split())[:TITLE_MAX_CHARS]


def _protocols(document: Document, channel: _Channel, bindings: dict[str, Any]) -> list[str]:
    if "x-protocols" in channel.node:
        return channel.node["x-protocols"]  # type: ignore[no-any-return] # what it holds is the service's to judge
    servers, path = follow(document, channel.node.get("servers", []), (*channel.path, "servers"))
    if not isinstance(servers, list):
        raise document.error("servers is a list of references", *path)
    spoken = [_protocol(document, server, (*path, number)) for number, server in enumerate(servers)]
    return [*dict.fromkeys(DOORS[name].value for name in (*spoken, *bindings) if name in DOORS)]


def _protocol(document: Document, server: Any, path: Path) -> str:
    """Give the protocol of a server: referred to (3.x), or named (2.x)."""
    if isinstance(server, str):
        servers, _ = mapping(document, document.data.get("servers", {}), ("servers",))
        if server not in servers:
            raise document.error(f"there is no server {server} in `servers`", *path)
        server, path = servers[server], ("servers", server)
    described, path = mapping(document, server, path)
    return str(described.get("protocol", ""))


def _bindings(document: Document, nodes: list[Placed]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the bindings of a channel, of its operations and of their traits, by protocol."""
    for node, path in [placed for one in nodes for placed in _with_traits(document, *one)]:
        bindings, where = mapping(document, node.get("bindings", {}), (*path, "bindings"))
        for protocol, binding in bindings.items():
            if not protocol.startswith("x-"):
                yield protocol, mapping(document, binding, (*where, protocol))[0]


def _with_traits(document: Document, node: dict[str, Any], path: Path) -> Iterator[Placed]:
    yield node, path
    traits, where = follow(document, node.get("traits", []), (*path, "traits"))
    if not isinstance(traits, list):
        raise document.error("traits are a list", *where)
    for number, trait in enumerate(traits):
        yield mapping(document, trait, (*where, number))


def _operations_2(document: Document) -> dict[Path, list[Placed]]:
    return {
        channel.path: [
            mapping(document, channel.node[action], (*channel.path, action))
            for action in _ACTIONS_2
            if action in channel.node
        ]
        for channel in _described(document)
    }


def _operations_3(document: Document) -> dict[Path, list[Placed]]:
    found: dict[Path, list[Placed]] = {}
    for operation, path in _described_operations(document):
        found.setdefault(_channel_path(document, operation, path), []).append((operation, path))
    return found


def _retention(document: Document, channel: _Channel, bindings: dict[str, Any]) -> dict[str, Any]:
    """Give how long events are kept: as we say it, or as a Kafka topic's configuration does."""
    if "x-retention" in channel.node:
        return mapping(document, channel.node["x-retention"], (*channel.path, "x-retention"))[0]
    topic = bindings.get("kafka", {}).get("topicConfiguration")
    if not isinstance(topic, dict):
        return {}
    age_ms, size = _amount(topic.get("retention.ms")), _amount(topic.get("retention.bytes"))
    return ({"max_age_s": max(1, age_ms // 1000)} if age_ms else {}) | ({"max_bytes": size} if size else {})


def _amount(value: Any) -> int:
    """Give a bound; 0 where there is none, for which Kafka's word is -1."""
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


def _rights_2(document: Document) -> Iterator[Right]:
    for channel in _described(document):
        yield from (Right(verb, channel.address) for action, verb in _ACTIONS_2.items() if action in channel.node)


def _asked(document: Document) -> Iterator[tuple[Verb, Path]]:
    """Give each right that an operation of AsyncAPI 3 needs, with the place of its channel."""
    for operation, path in _described_operations(document):
        action = operation.get("action")
        if not isinstance(action, str) or action not in _ACTIONS:
            raise document.error("an operation's action is send or receive", *path, "action")
        asked, answered = _ACTIONS[action]
        yield asked, _channel_path(document, operation, path)
        if "reply" in operation:
            reply, where = mapping(document, operation["reply"], (*path, "reply"))
            if "channel" in reply:
                yield answered, _channel_path(document, reply, where)


def _described_operations(document: Document) -> Iterator[Placed]:
    operations, path = mapping(document, document.data.get("operations", {}), ("operations",))
    for name, node in operations.items():
        yield mapping(document, node, (*path, name))


def _channel_path(document: Document, node: dict[str, Any], path: Path) -> Path:
    if "channel" not in node:
        raise document.error("names no channel; refer to one of `channels`", *path)
    return mapping(document, node["channel"], (*path, "channel"))[1]
