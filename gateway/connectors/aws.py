"""AWS SQS and SNS, by aiobotocore. CloudEvents attributes are message attributes, of which AWS allows ten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any

import orjson
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from gateway.connectors import headers
from gateway.connectors.broker import (
    CONNECT_TIMEOUT_S,
    HOLD_S,
    READ_WAIT_S,
    BrokerUnavailable,
    Options,
    Record,
    Unwritable,
    event_placeholders,
    fill_placeholders,
    flag,
    text,
)
from gateway.log.event import Event

PREFIX = "ce-"
REQUEST_MAX = 10
"""Limits of AWS: messages of one request, and attributes of one message."""
KEPT = ("ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-channel", "ce-sequence", "ce-subject",
        "content-type", "traceparent")  # fmt: skip
_FAULTS = (BotoCoreError, ClientError, HTTPClientError, OSError, TimeoutError)
_CONNECTION_OPTIONS = (
    text("region", is_required=True),
    text("endpoint_url"),
    text("access_key_id", is_secret=True),
    text("secret_access_key", is_secret=True),
)
SOURCE_OPTIONS = (*_CONNECTION_OPTIONS, text("queue_url", is_required=True), flag("unwrap_sns", default=False))
SQS_SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("queue_url", is_required=True), text("group"))
SNS_SINK_OPTIONS = (*_CONNECTION_OPTIONS, text("topic_arn", is_required=True), text("group"))


class _Connection:
    service = "sqs"

    def __init__(self, options: Options, name: str) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._name = name

    async def open(self) -> None:
        options = self._options
        config = AioConfig(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=CONNECT_TIMEOUT_S + READ_WAIT_S,
            retries={"max_attempts": 0},
            user_agent_extra=f"apimgmt/{self._name}",
        )
        try:
            self._client: Any = await self._stack.enter_async_context(
                get_session().create_client(
                    self.service,
                    region_name=options["region"],
                    endpoint_url=options["endpoint_url"],
                    aws_access_key_id=options["access_key_id"],
                    aws_secret_access_key=options["secret_access_key"],
                    config=config,
                )
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def close(self) -> None:
        await self._stack.aclose()


class SqsSource(_Connection):
    """Receives from a queue; a message is deleted once its event is stored."""

    async def read(self) -> Sequence[Record]:
        try:
            answer = await self._client.receive_message(
                QueueUrl=self._options["queue_url"],
                MaxNumberOfMessages=REQUEST_MAX,
                WaitTimeSeconds=int(READ_WAIT_S),
                VisibilityTimeout=HOLD_S,
                MessageAttributeNames=["All"],
            )
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error
        return [_record(message, is_wrapped=self._options["unwrap_sns"]) for message in answer.get("Messages", ())]

    async def hold(self, records: Sequence[Record]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": record.handle, "VisibilityTimeout": HOLD_S}
            for number, record in enumerate(records)
        ]
        try:
            for lot in _batches(entries):
                await self._client.change_message_visibility_batch(QueueUrl=self._options["queue_url"], Entries=lot)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error

    async def commit(self, records: Sequence[Record]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": record.handle} for number, record in enumerate(records)]
        try:
            for lot in _batches(entries):
                await self._client.delete_message_batch(QueueUrl=self._options["queue_url"], Entries=lot)
        except _FAULTS as error:
            raise BrokerUnavailable(_describe(error)) from error


class _BatchSink(_Connection):
    async def write(self, events: Sequence[Event]) -> None:
        for lot in _batches(list(events)):
            try:
                answer = await self._send([self._entry(number, event) for number, event in enumerate(lot)])
            except _FAULTS as error:
                raise BrokerUnavailable(_describe(error)) from error
            for failed in answer.get("Failed", ()):
                if failed["SenderFault"]:
                    raise Unwritable(
                        lot[int(failed["Id"])], f"AWS: {failed['Code']}: {failed.get('Message', '')}"[:300]
                    )
                raise BrokerUnavailable(f"AWS: {failed['Code']}")

    def _entry(self, number: int, event: Event) -> dict[str, Any]:
        fields = headers.written(event, PREFIX)
        attributes = {name: {"DataType": "String", "StringValue": fields[name]} for name in KEPT if name in fields}
        entry: dict[str, Any] = {"Id": str(number), "MessageAttributes": attributes}
        if self._options["group"]:
            # FIFO: in order within a group, deduplicated for five minutes.
            entry["MessageGroupId"] = fill_placeholders(self._options["group"], event_placeholders(event))
            entry["MessageDeduplicationId"] = f"{event.channel}/{event.id}"[-128:]
        return entry

    async def _send(self, entries: list[dict[str, Any]]) -> Any:
        raise NotImplementedError


class SqsSink(_BatchSink):
    """Sends to a queue."""

    def _entry(self, number: int, event: Event) -> dict[str, Any]:
        return super()._entry(number, event) | {"MessageBody": _text(event)}

    async def _send(self, entries: list[dict[str, Any]]) -> Any:
        return await self._client.send_message_batch(QueueUrl=self._options["queue_url"], Entries=entries)


class SnsSink(_BatchSink):
    """Publishes to a topic."""

    service = "sns"

    def _entry(self, number: int, event: Event) -> dict[str, Any]:
        return super()._entry(number, event) | {"Message": _text(event)}

    async def _send(self, entries: list[dict[str, Any]]) -> Any:
        return await self._client.publish_batch(TopicArn=self._options["topic_arn"], PublishBatchRequestEntries=entries)


def _text(event: Event) -> str:
    try:
        return event.data.decode()
    except UnicodeDecodeError as error:
        raise Unwritable(event, "AWS accepts only text, and this event is binary") from error


def _record(message: dict[str, Any], *, is_wrapped: bool) -> Record:
    body = message["Body"]
    fields = {
        name: attribute.get("StringValue", "") for name, attribute in message.get("MessageAttributes", {}).items()
    }
    if is_wrapped:
        body, fields = _unwrapped(body, fields)
    attributes, _, traceparent = headers.read(fields, (PREFIX,))
    data = body.encode()
    return Record(
        id=message["MessageId"],
        data=data,
        handle=message["ReceiptHandle"],
        content_type=fields.get("content-type") or "",
        attributes=attributes,
        traceparent=traceparent,
    )


def _unwrapped(body: str, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Unwrap the envelope of an SNS notification; returns other bodies unchanged."""
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body, fields
    if not isinstance(envelope, dict) or envelope.get("Type") != "Notification":
        return body, fields
    attributes = envelope.get("MessageAttributes") or {}
    return str(envelope.get("Message", "")), {
        name: str(attribute.get("Value", "")) for name, attribute in attributes.items()
    }


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    left = iter(items)
    while lot := list(islice(left, REQUEST_MAX)):
        yield lot


def _describe(error: BaseException) -> str:
    return f"AWS: {type(error).__name__}: {error}"[:300]
