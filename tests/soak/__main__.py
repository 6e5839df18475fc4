"""Runs the soak, prints what it saw, and ends with 1 if a bound was broken."""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from gateway.tests.work.peers import upstream
from tests.product import Product, eventually
from tests.scenarios.test_random_kills import ArrayPublisher, Load, SocketPublisher
from tests.scenarios.test_survival import (
    WITHIN_S,
    EventSourceReader,
    MqttPublisher,
    RestPublisher,
    SocketReader,
    stored,
    wait_until_ready,
)
from tests.soak.memory import Memory
from tests.soak.traffic import Calls, Changes, Churn, Echo, Jobs

PAUSE_S = 0.2
KINDS = ("web", "mqtt", "nats", "redis", "worker", "beat", "projector")
"""What is killed: the kinds of process whose end is promised to lose nothing (tests/scenarios/test_survival.py)."""
KILLS_EVERY_S = 6.0
WARM_UP_SHARE, KILLS_SHARE = 0.2, 0.3
GROWTH_MIB, GROWTH_SHARE = 12.0, 0.15
"""How much a process may grow while nothing is killed: the larger of the two."""
NOT_OURS = ("nats", "redis")
"""Their memory goes with what they store."""
P99_S = 1.0


class Soak:
    """One product, its traffic, and what broke."""

    def __init__(self, product, minutes, dice, upstream_port):
        self.product, self.dice, self.upstream_port = product, dice, upstream_port
        self.seconds = 60 * minutes
        self.over = threading.Event()
        self.is_calm = False
        """Whether nobody is killed, so that each answer has to be right at once."""
        self.killed = Counter()
        self.broken = []
        self.channel = "soak"
        handler = {"type": "upstream", "url": f"ws://127.0.0.1:{upstream_port}/"}
        route = {"name": "soak-echo", "path": Echo.path, "methods": ["GET"], "protocol": "websocket"}
        product.admin("POST", "routes/", route | {"handler": handler, "policies": [{"type": "api-key"}]})
        product.admin("POST", "channels/", {"address": self.channel, "retention": {"max_age_s": 86400}})
        key = product.ready["keys"]["bench"]
        path = f"/v1/channels/{self.channel}/events"
        eventually(lambda: product.call("POST", path, {"n": -1}, key)[0] == 201)
        self.after = product.call("GET", path, key=key)[2]["results"][0]["id"]

    def run(self):
        """Kill first, then let the survivors and the restarted be measured in peace."""
        readers = [kind(self.product, self.channel, self.after) for kind in (SocketReader, EventSourceReader)]
        publishers = [kind(self.product, self.channel) for kind in (RestPublisher, SocketPublisher, MqttPublisher)]
        array = paced(ArrayPublisher(self.product, self.channel))
        self.traffic = [kind(self) for kind in (Calls, Calls, Echo, Churn, Churn, Jobs, Changes)]
        self.memory = Memory(self.product)
        with Load([*((paced(publisher), 1) for publisher in publishers), (array, 3)]) as load:
            for thread in (*readers, *self.traffic, self.memory):
                thread.start()
            self._kill_for(KILLS_SHARE * self.seconds)
            wait_until_ready(self.product)
            self.is_calm = True
            self.over.wait(WARM_UP_SHARE * self.seconds)
            self.memory.restart()
            self.over.wait((1 - KILLS_SHARE - WARM_UP_SHARE) * self.seconds)
        self.over.set()
        self.memory.over.set()
        for thread in (*self.traffic, self.memory):
            thread.join(WITHIN_S)
        for publisher in publishers[1:]:
            publisher.close()
        self._judge_events(load, readers)
        self._judge_traffic()
        self._judge_memory()

    def _kill_for(self, seconds):
        ends_at = time.monotonic() + seconds
        for number in range(10**6):
            if time.monotonic() > ends_at:
                return
            kind = KINDS[number] if number < len(KINDS) else self.dice.choice(KINDS)
            try:
                os.kill(self.dice.choice(self.product.reread()["processes"][kind]), signal.SIGKILL)
            except (ProcessLookupError, KeyError, IndexError):
                continue  # it is being restarted
            self.killed[kind] += 1
            self.over.wait(min(KILLS_EVERY_S, seconds / len(KINDS)))

    def _judge_events(self, load, readers):
        """Compare what was acknowledged with what is stored, and what is stored with what was delivered."""
        for fault in load.faults:
            self.broken.append(f"a publisher gave up: {fault!r}")
        kept = stored(self.product, self.channel, self.after)
        numbers = list(dict.fromkeys(n for _, n in kept))
        lost = load.acknowledged - set(numbers)
        print(f"events: {len(load.acknowledged)} acknowledged, {len(kept)} stored, {len(lost)} lost")
        if lost:
            self.broken.append(f"{len(lost)} acknowledged events were lost, the first is {min(lost)}")
        for kind in set(load.sent.values()):
            of_kind = [n for n in numbers if load.sent.get(n) is kind]
            if of_kind != sorted(of_kind):
                self.broken.append(f"the events of {kind.__name__} are not in order")
        for reader in readers:
            name = type(reader).__name__
            try:
                eventually(lambda reader=reader: len(reader.seen) >= len(kept), WITHIN_S)
            except AssertionError:
                self.broken.append(f"{name} got {len(reader.seen)} of {len(kept)} events")
            reader.over.set()
            reader.join(10)
            print(f"{name}: {len(reader.seen)} events, connected {reader.returns + 1} times")
            if reader.seen != kept:
                self.broken.append(f"{name} did not get what is stored, in its order")

    def _judge_traffic(self):
        print(f"killed: {', '.join(f'{kind} {count}' for kind, count in sorted(self.killed.items()))}")
        for one in self.traffic:
            name = type(one).__name__
            print(f"{name}: {one.done} done, {one.lost} broken off by kills")
            self.broken += [f"{name}: {count} times {fault}" for fault, count in one.faults.most_common(5)]
            if not one.done:
                self.broken.append(f"{name}: nothing was done")
        waits = sorted(wait for one in self.traffic if type(one) is Calls for wait in one.latencies_s)
        if len(waits) > 1:
            cuts = statistics.quantiles(waits, n=1000)
            p50, p99, p999, most = (1000 * wait for wait in (cuts[499], cuts[989], cuts[998], waits[-1]))
            print(f"latency of {len(waits)} calls: p50 {p50:.1f} ms, p99 {p99:.1f}, p99.9 {p999:.1f}, most {most:.1f}")
            if p99 > 1000 * P99_S:
                self.broken.append(f"the p99 of calls is {p99:.0f} ms, more than {1000 * P99_S:.0f}")

    def _judge_memory(self):
        for trend in self.memory.trends():
            grown = f"{trend.grown_mib:+.2f} ({trend.mib_an_hour:+.1f} an hour)"
            print(f"memory of {trend.name}: {trend.mib:.1f} MiB, {grown}")
            most = max(GROWTH_MIB, GROWTH_SHARE * trend.mib)
            if trend.grown_mib > most and not trend.name.startswith(NOT_OURS):
                self.broken.append(f"{trend.name} grew by {trend.grown_mib:.1f} MiB, more than {most:.1f}")


def paced(publisher):
    """Let a publisher pause after each publish: an hour of events has to be compared at the end."""
    at_once = publisher.publish

    def publish(*numbers):
        at_once(*numbers)
        time.sleep(PAUSE_S)

    publisher.publish = publish
    return publisher


def main():
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apimgmt-soak-") as folder, upstream() as port:
        product = Product(Path(folder) / "var", "--workers", "2")
        print(f"soak of {options.minutes:g} minutes, seed {options.seed}", flush=True)
        try:
            soak = Soak(product, options.minutes, random.Random(options.seed), port)
            soak.run()
        finally:
            product.stop()
    for one in soak.broken:
        print(f"broken: {one}")
    print("soak failed" if soak.broken else "soak passed")
    return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main())
