"""A process that runs a sink until its broker has COUNT events, acknowledges none, and waits to be killed."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from gateway.config import Config
from gateway.connectors.running import Running
from gateway.snapshot.documents import Connector
from gateway.tests.event_plane import PEPPER, EventPlane


class DyingSink(Running):
    """A sink that ends between the write of a broker and the acknowledgement in the log."""

    left = 0

    async def _acknowledge(self, messages):
        self.left -= len(messages)
        if self.left <= 0:
            sys.stdout.write("written\n")
            sys.stdout.flush()
        await asyncio.sleep(600)


async def main(nats_url, channel, connector, count):
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            process="dying", kind="connectors", data_dir=Path(folder), nats_url=nats_url,
            redis_url="redis://127.0.0.1:1", key_pepper=PEPPER, secret_key=b"secret",
            public_url="http://gateway.test",
        )  # fmt: skip
        plane = EventPlane(config, {"channel": [json.loads(channel)]})
        await plane.start()
        sink = DyingSink(plane, Connector(**json.loads(connector)))
        sink.left = int(count)
        await sink.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
