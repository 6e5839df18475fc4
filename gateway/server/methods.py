"""Methods that the parser of the server does not know: it has a list of them, while any token is one (RFC 9110 9.1)."""

from __future__ import annotations

from gateway.refusals import Reason, Refused
from gateway.server.heads import malformed
from gateway.wire.header_fields import NAME

ERROR = "nvalid method"
"""In the parser's message for a method that it does not know, or that it knows of another protocol."""
STAND_IN = b"PURGE"
"""Takes the place of such a method: the parser frames its requests like any others."""
MAX_BYTES = 64


def unknown_method(data: bytes) -> bytes:
    """Return the method of the request line that data begins with. Raises Refused where it has none.

    Without the whole method, as where it arrives in pieces, the request cannot be parsed again.
    """
    method, space, _ = data[: MAX_BYTES + 1].partition(b" ")
    if data and not NAME.fullmatch(method.decode("latin-1")):
        raise malformed("its method is no token")
    if not space:
        raise Refused(Reason.METHOD_NOT_IMPLEMENTED)
    return method
