"""The kinds of connectors and the client library of each, which is imported only when a connector uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gateway.connectors.broker import Option

SOURCE, SINK = "source", "sink"
DIRECTIONS = (SOURCE, SINK)
INSTALL = ".venv/bin/python -m pip install -r requirements-connectors.txt"
"""The command that installs the client libraries of all kinds."""


class NotInstalled(Exception):
    """The client library of a kind of connector is not installed; the text says which command installs it."""


class NoSuchKind(Exception):
    """There is no such connector."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the code of a kind of connector is, and what it requires."""

    module: str
    requires: str
    """The import name of the client library."""
    source: tuple[str, str] | None
    """The names of its class and of its options."""
    sink: tuple[str, str] | None


_BOTH = "SOURCE_OPTIONS", "SINK_OPTIONS"
KINDS: Mapping[str, Kind] = {
    "kafka": Kind("kafka", "aiokafka", ("KafkaSource", _BOTH[0]), ("KafkaSink", _BOTH[1])),
    "rabbitmq": Kind("rabbitmq", "aio_pika", ("RabbitSource", _BOTH[0]), ("RabbitSink", _BOTH[1])),
    "nats": Kind("nats", "nats", ("NatsSource", _BOTH[0]), ("NatsSink", _BOTH[1])),
    "redis-streams": Kind("redis_streams", "redis", ("RedisSource", _BOTH[0]), ("RedisSink", _BOTH[1])),
    "mqtt": Kind("mqtt", "paho", ("MqttSource", _BOTH[0]), ("MqttSink", _BOTH[1])),
    "sqs": Kind("aws", "aiobotocore", ("SqsSource", _BOTH[0]), ("SqsSink", "SQS_SINK_OPTIONS")),
    "sns": Kind("aws", "aiobotocore", None, ("SnsSink", "SNS_SINK_OPTIONS")),
    "google-pubsub": Kind("google_pubsub", "gcloud.aio.pubsub", ("PubsubSource", _BOTH[0]), ("PubsubSink", _BOTH[1])),
}


@dataclass(frozen=True, slots=True)
class ConnectorFactory:
    """Makes connectors of one kind and direction, from the options that it declares."""

    make: Callable[[Mapping[str, Any], str], Any]
    """Takes the resolved options and the connector's name; returns a Source or a Sink. Needs a running event loop."""
    options: tuple[Option, ...]


def find(type_: str, direction: str) -> ConnectorFactory:
    """Return the factory of a kind. Raises NoSuchKind, and NotInstalled where its client library is missing."""
    kind = KINDS.get(type_)
    if kind is None:
        raise NoSuchKind(f"There is no connector `{type_}`; the kinds are {', '.join(KINDS)}.")
    names = {SOURCE: kind.source, SINK: kind.sink}.get(direction)
    if names is None:
        raise NoSuchKind(f"A connector `{type_}` cannot be a {direction}.")
    if not is_installed(kind):
        raise NotInstalled(f"The client library of `{type_}` is not installed. Install it: {INSTALL}")
    module = import_module(f"gateway.connectors.{kind.module}")
    return ConnectorFactory(getattr(module, names[0]), getattr(module, names[1]))


def is_installed(kind: Kind) -> bool:
    """Return whether the client library of a kind is installed."""
    try:
        return find_spec(kind.requires) is not None
    except ModuleNotFoundError:
        return False
