"""Frames of a server as another implementation reads them."""

import pytest
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from gateway.wire.websocket_frame import text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_a_text_frame_is_read_whole_by_another_implementation(size):
    reader = StreamReader()
    reader.feed_data(text_frame(b"x" * size) + text_frame(b"next"))
    for expected in (b"x" * size, b"next"):
        with pytest.raises(StopIteration) as parsed:
            next(TheirFrame.parse(reader.read_exact, mask=False))
        frame = parsed.value.value
        assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, expected)
