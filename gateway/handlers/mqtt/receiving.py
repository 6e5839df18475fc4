"""The QoS 2 publishes of one MQTT connection from PUBLISH to PUBREL, and what of them outlasts the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.concurrency.stopping import discard
from gateway.durable.mqtt_sessions import Claim, TakenOver
from gateway.refusals import Refused
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import Ack, Publish, Type
from gateway.wire.mqtt.session import RECEIVE_MAX, Session

if TYPE_CHECKING:
    from gateway.plane import Plane

PACKET_ID_NOT_FOUND = 0x92


class Receiving:
    """Identifies the QoS 2 publishes of a connection, and releases their packet ids.

    A session that lasts is claimed at the first QoS 2 packet. Every PUBCOMP of it waits until the release is stored;
    those that arrive meanwhile are stored by one write.
    """

    __slots__ = (
        "_call", "_claimed", "_client", "_close", "_is_forgotten", "_plane", "_released", "_saving", "_send",
        "_session", "_unsaved",
    )  # fmt: skip

    def __init__(
        self,
        plane: Plane,
        call: Call,
        session: Session,
        *,
        send: Callable[[bytes], None],
        close: Callable[[Refused | TakenOver], None],
    ) -> None:
        self._plane = plane
        self._call = call
        self._session = session
        self._send = send
        self._close = close
        self._client = call.caller.consumer, f"{call.caller.maker}\0{session.client_id}"
        self._claimed: Claim | None = None
        self._is_forgotten = False
        self._released: list[Ack] = []
        self._unsaved: set[int] = set()
        """Packet ids whose release is not stored yet."""
        self._saving: asyncio.Task[None] | None = None

    async def identity(self, packet: Publish) -> str | None:
        """Return what identifies a QoS 2 publish that is sent again, or None if it is known to this connection alone.

        Raises Refused, and TakenOver.
        """
        if packet.qos < 2:
            return None
        if not self._session.is_lasting:
            await self._forget()
            return None
        if packet.packet_id in self._unsaved and self._saving is not None:
            await asyncio.wait({self._saving})  # the client did not wait for PUBCOMP
        return (await self._claim()).identity(packet.packet_id)

    async def renew(self, packet_id: int) -> str:
        """Return another identity for a publish whose packet id the client uses anew without having released it.

        Raises Refused, and TakenOver.
        """
        claimed = await self._claim()
        claimed.uses.end(packet_id)
        await claimed.save()
        return claimed.identity(packet_id)

    async def release(self, packet_id: int) -> None:
        """Process a PUBREL; its PUBCOMP is sent once the release is stored. Raises Refused, and TakenOver."""
        is_known = self._session.release(packet_id)
        completed = Ack(Type.PUBCOMP, packet_id, 0 if is_known else PACKET_ID_NOT_FOUND)
        if not self._session.is_lasting:
            self._complete(completed)
            return
        claimed = await self._claim()
        if claimed.is_resumed:
            completed = Ack(Type.PUBCOMP, packet_id)  # an earlier connection may have received it
        uses, in_use = claimed.uses, self._session.received
        uses.end(packet_id)
        self._released.append(completed)
        self._unsaved.add(packet_id)
        must_wait = len(self._released) >= RECEIVE_MAX
        if uses.is_full(in_use):
            # No PUBLISH may arrive before this is stored: it would have a number that another process does not know.
            uses.compact(in_use)
            must_wait = True
        if self._saving is None:
            self._saving = asyncio.create_task(self._save(claimed), name="mqtt session")
            self._saving.add_done_callback(discard)
        if must_wait:
            await asyncio.wait({self._saving})

    async def finish(self) -> None:
        """Wait until the releases in progress are stored, and completed; storing has its own deadline."""
        if self._saving is not None:
            await asyncio.wait({self._saving})

    async def _claim(self) -> Claim:
        if self._claimed is None:
            assert self._call.connection is not None, "the connection was opened"
            self._claimed = await self._plane.mqtt_sessions.claim(
                *self._client, self._call.connection.id, is_clean=self._session.connect.is_clean
            )
        return self._claimed

    async def _forget(self) -> None:
        """Delete what an earlier session of the client left, before the first QoS 2 publish of a clean one."""
        if not self._is_forgotten:
            await self._plane.mqtt_sessions.forget(*self._client)
            self._is_forgotten = True

    async def _save(self, claimed: Claim) -> None:
        try:
            while self._released:
                released, self._released = self._released, []
                await claimed.save()
                self._unsaved.difference_update(completed.packet_id for completed in released)
                for completed in released:
                    self._complete(completed)
        except (Refused, TakenOver) as ending:
            self._close(ending)
        finally:
            self._saving = None

    def _complete(self, completed: Ack) -> None:
        self._send(codec.ack(self._session.version, completed))
