"""A process that reads COUNT records of a source, commits none, and waits to be killed."""

import asyncio
import json
import sys

from gateway.connectors.broker import resolve_options
from gateway.connectors.kinds import SOURCE, find


async def main(type_, name, options, count):
    factory = find(type_, SOURCE)
    source = factory.make(resolve_options(json.loads(options), factory.options), name)
    await source.open()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    left = int(count)
    while left > 0:
        left -= len(await source.read())
    sys.stdout.write("read\n")
    sys.stdout.flush()
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
