"""What one unit of work may take at most: a tenth more calls than was counted, half as many blocks again.

A change that needs more has to raise a bound here, where a reviewer sees it; one that needs less lowers it.
Units: requests for HTTP, messages both ways for the tunnel, events sent to one subscriber for deliveries, stored and
acknowledged events for publishes. The socket writes of a publish are the one to NATS and the one to the publisher; the
timers leave room for those that the process sets now and then whatever it serves.
"""

from gateway.tests.work.counts import Counts

BOUNDS = {
    "carried GET": Counts(calls=136, blocks=160, kept=1, writes=2),
    "carried POST": Counts(calls=147, blocks=140, kept=1, writes=2),
    "GET on the path": Counts(calls=405, blocks=350, kept=1.5, tasks=1, futures=1, writes=2),
    "echo through a tunnel": Counts(calls=100, blocks=130, kept=1, writes=2),
    "delivery by websocket, 1 in a turn": Counts(calls=30, blocks=500, kept=1, futures=0.1, writes=1),
    "delivery by websocket, 10 in a turn": Counts(calls=5, blocks=500, kept=0.2, writes=0.1),
    "delivery by sse, 1 in a turn": Counts(calls=27, blocks=500, kept=1, futures=0.1, writes=1),
    "delivery by sse, 10 in a turn": Counts(calls=4.2, blocks=500, kept=0.2, writes=0.1),
    "delivery by mqtt, 1 in a turn": Counts(calls=40, blocks=500, kept=1, futures=0.1, writes=1),
    "delivery by mqtt, 10 in a turn": Counts(calls=10, blocks=500, kept=0.2, writes=0.1),
    "publish by rest": Counts(calls=640, blocks=600, kept=8, tasks=1, futures=4.4, timers=0.5, writes=2),
    "publish by array": Counts(calls=120, blocks=550, kept=1, tasks=0.1, futures=0.5, writes=0.2),
    "publish by websocket": Counts(calls=470, blocks=500, kept=1, futures=5.4, timers=1.5, writes=2),
    "publish by mqtt": Counts(calls=475, blocks=600, kept=1, futures=5.4, timers=1.5, writes=2),
}
