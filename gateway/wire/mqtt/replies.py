"""The packets that answer a client, with the reason code, reason string and user properties of a refusal."""

from __future__ import annotations

from gateway.refusals import MQTT5_ALLOWED, Packet, Reason, Refused
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V5, V311, Ack, Connect, Publish, Type
from gateway.wire.mqtt.types import TOO_LARGE, PacketError

UNSPECIFIED, BAD_PAYLOAD_FORMAT, TAKEN_OVER = 0x80, 0x99, 0x8E
FAILURE_311 = 0x80
"""The only failure code of SUBACK in 3.1.1 (3.9.3)."""
CONNACK_311 = {codec.UNSUPPORTED_VERSION: 1, codec.BAD_CLIENT_ID: 2}
UserProperties = list[tuple[str, str]]


class ProtocolViolation(Refused):
    """The client violated MQTT; refused with MQTT's own reason code in every packet that may carry it."""

    def __init__(self, code: int, detail: str, cause: str = "malformed-packet") -> None:
        reason = Reason.TOO_LARGE if code == TOO_LARGE else Reason.INVALID_REQUEST
        super().__init__(reason, f"{detail[:1].upper()}{detail[1:]}.", cause=cause, fatal=True)
        self.code = code

    @classmethod
    def of(cls, error: PacketError) -> ProtocolViolation:
        """Return the refusal of a packet that is malformed or out of order."""
        return cls(error.code, str(error))


def code_of(refused: Refused, packet: Packet) -> int:
    """Return the MQTT 5 reason code of a refusal in a packet."""
    if isinstance(refused, ProtocolViolation) and packet.value in MQTT5_ALLOWED.get(refused.code, ""):
        return refused.code
    return refused.row.mqtt5.get(packet, UNSPECIFIED)


class Replies:
    """Encodes the packets that answer one client, by its version and the properties of its CONNECT."""

    def __init__(self, connect: Connect) -> None:
        self.version = connect.version
        self._wants_reasons = bool(connect.properties.get("request_problem", 1))
        self.packet_max_bytes: int = connect.properties.get("maximum_packet_size", 2**32)

    def connack(self, refused: Refused) -> bytes:
        """Return CONNACK for a refused connection; empty if 3.1.1 closes it without one (3.1.4)."""
        if self.version == V5:
            reason, user = self._reason(refused)
            packet = codec.connack(V5, code_of(refused, Packet.CONNACK), codec.reason_properties(reason, user))
            return self._fitting(packet, codec.connack(V5, code_of(refused, Packet.CONNACK)))
        if isinstance(refused, ProtocolViolation):
            code = CONNACK_311.get(refused.code)
            return b"" if code is None else codec.connack(V311, code)
        return codec.connack(V311, refused.row.connack)

    def disconnect(self, refused: Refused) -> bytes:
        """Return DISCONNECT for an accepted connection; empty on 3.1.1, whose servers send none."""
        code = code_of(refused, Packet.DISCONNECT)
        reason, user = self._reason(refused)
        return self._fitting(codec.disconnect(self.version, code, reason, user), codec.disconnect(self.version, code))

    def taken_over(self) -> bytes:
        """Return DISCONNECT for a client that connected again (3.1.4)."""
        return codec.disconnect(self.version, TAKEN_OVER, "The same client connected again.")

    def ack(self, packet: Publish, refused: Refused | None) -> bytes:
        """Return PUBACK or PUBREC for a publish of QoS 1 or 2; one of 3.1.1 cannot carry the refusal."""
        type_ = Type.PUBACK if packet.qos == 1 else Type.PUBREC
        if refused is None or self.version != V5:
            return codec.ack(self.version, Ack(type_, packet.packet_id))
        ack = Ack(type_, packet.packet_id, _publish_code(packet, refused))
        reason, user = self._reason(refused)
        return self._fitting(codec.ack(V5, ack, reason, user), codec.ack(V5, ack))

    def suback(self, packet_id: int, outcomes: list[int | Refused]) -> bytes:
        """Return SUBACK: for each filter the QoS granted, or the code of its refusal."""
        refused = next((outcome for outcome in outcomes if isinstance(outcome, Refused)), None)
        codes = [outcome if isinstance(outcome, int) else self._suback_code(outcome) for outcome in outcomes]
        reason, user = self._reason(refused) if refused is not None else ("", None)
        packet = codec.suback(self.version, packet_id, codes, reason, user)
        return self._fitting(packet, codec.suback(self.version, packet_id, codes))

    def _suback_code(self, refused: Refused) -> int:
        return code_of(refused, Packet.SUBACK) if self.version == V5 else FAILURE_311

    def _reason(self, refused: Refused) -> tuple[str, UserProperties | None]:
        """Return the reason string and user properties, empty if the client requested none (3.1.2.11.7)."""
        if not self._wants_reasons:
            return "", None
        user = [("reason", refused.reason.value)]
        if refused.retry_after_s is not None:
            user.append(("retry_after_s", f"{max(0.0, refused.retry_after_s):.3f}"))
        user += [(name, str(value)) for name, value in refused.members.items() if name == "pointer"]
        return refused.detail, user

    def _fitting(self, packet: bytes, bare: bytes) -> bytes:
        """Return the packet without its reason if the client does not accept one that large (3.2.2.3.9)."""
        return packet if len(packet) <= self.packet_max_bytes else bare


def _publish_code(packet: Publish, refused: Refused) -> int:
    if refused.reason is Reason.INVALID_PAYLOAD:
        if refused.cause == "content-type":
            return BAD_PAYLOAD_FORMAT
        try:
            packet.payload.decode()
        except UnicodeDecodeError:
            return BAD_PAYLOAD_FORMAT
    return code_of(refused, Packet.PUBACK)
