"""Which connections are closed when there are too many: no sockets, no clock."""

import random
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from gateway.listening.ceilings import Ceilings
from gateway.listening.tcp_connections import GRACE_S, Ceiling, TcpConnection, TcpConnections

A, B, PROXY = "203.0.113.1", "203.0.113.2", "10.0.0.1"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class Settings:
    anonymous_connections_max: int = 8192
    anonymous_connections_per_ip: int = 512
    head_max_bytes: int = 32 * 1024
    path_max_bytes: int = 8 * 1024


class World:
    """Connections with names; what is closed is listed."""

    def __init__(self, **ceilings):
        numbers = {"files": 1000, "anonymous": 8, "of_network_at_once": 5, "of_network": 3, **ceilings}
        self.clock = Clock()
        self.connections = TcpConnections(Ceilings(**numbers), (ip_network("10.0.0.0/8"),), self.clock)
        self.closed = []

    def open(self, name, ip=A):
        connection = TcpConnection(self.connections, ip, 1)
        connection.closed_by(lambda: self.closed.append(name))
        self.connections.join(connection)
        self.clock.now += 0.001
        return connection

    def prove(self, name, ip=A):
        connection = self.open(name, ip)
        connection.busy()
        connection.proved()
        return connection


def test_of_one_address_the_oldest_is_closed_and_the_newest_served():
    world = World()
    for number in range(7):
        world.open(number)
    assert world.closed == [0, 1]
    assert world.connections.shed == {Ceiling.ADDRESS: 2}


def test_beyond_a_moment_an_address_keeps_fewer():
    world = World()
    for number in range(5):
        world.open(number)
    world.connections.sweep(world.clock.now)
    assert world.closed == []
    world.clock.now += GRACE_S
    new = world.open("new")
    world.connections.sweep(world.clock.now)
    assert world.closed == [0, 1, 2]
    world.clock.now += GRACE_S
    world.connections.sweep(world.clock.now)
    assert not new.is_shed


def test_the_addresses_of_an_ipv6_network_count_as_one():
    world = World()
    for number in range(6):
        world.open(number, f"2001:db8:1:2::{number:x}")
    world.open("other", "2001:db8:1:3::1")
    assert world.closed == [0]


def test_one_address_costs_no_connection_of_another():
    world = World()
    other = world.open("other", B)
    for number in range(100):
        world.open(number)
    assert not other.is_shed


def test_in_all_the_one_that_waited_longest_is_closed():
    world = World()
    for number in range(9):
        world.open(number, f"198.51.100.{number}")
    assert world.closed == [0]
    assert world.connections.shed == {Ceiling.PROCESS: 1}


def test_one_that_is_answered_is_closed_after_those_that_wait():
    world = World()
    busy = world.open("busy")
    busy.busy()
    for number in range(5):
        world.open(number)
    assert world.closed == [0]


def test_a_proved_credential_takes_a_connection_out_of_the_ceilings():
    world = World()
    proved = [world.prove(f"proved {number}") for number in range(20)]
    for number in range(20):
        world.open(number)
    assert not any(connection.is_shed for connection in proved)
    assert (world.connections.anonymous, world.connections.with_credential) == (5, 20)


def test_a_refused_call_or_one_without_credential_puts_it_back():
    world = World()
    refused, unproved, kept = world.prove("refused"), world.prove("unproved"), world.prove("kept")
    refused.unproved()
    refused.idle()
    for connection in (unproved, kept):
        connection.idle()
        connection.busy()
    kept.proved()
    for connection in (unproved, kept):
        connection.idle()
    assert [refused.is_proved, unproved.is_proved, kept.is_proved] == [False, False, True]
    assert (world.connections.anonymous, world.connections.with_credential) == (2, 1)


def test_a_proxys_connections_are_counted_by_the_client_while_it_asks():
    world = World(anonymous=50)
    proxied = [world.open(number, PROXY) for number in range(20)]
    assert world.closed == []
    for connection in proxied:
        connection.busy()
        connection.asked_by(A)
    assert len(world.closed) == 15
    for connection in proxied:
        connection.idle()
    assert world.open("direct").is_shed is False
    assert len(world.closed) == 15


def test_a_client_that_a_proxy_header_reports_is_counted_and_another_proxy_is_not():
    world = World()
    connections = [world.open(number, PROXY) for number in range(6)]
    for connection in connections[:5]:
        connection.came_from(A, 5)
    connections[5].came_from("10.9.9.9", 5)
    world.open("direct")
    assert world.closed == [0]
    assert connections[5].is_of_proxy


def test_when_files_are_scarce_the_anonymous_go_first_and_then_an_idle_one():
    world = World(files=10)
    idle, streaming = world.prove("idle"), world.prove("streaming")
    world.open("anonymous")
    idle.idle()
    assert world.connections.may_open(9)
    idle.busy()
    idle.proved()
    idle.idle()
    assert [world.connections.may_open(10) for _ in range(3)] == [True, True, False]
    assert world.closed == ["anonymous", "idle"]
    assert not streaming.is_shed
    assert world.connections.shed == {Ceiling.FILES: 3}


def test_for_want_of_memory_the_youngest_half_goes_and_nothing_that_is_proved():
    world = World()
    proved = world.prove("proved", B)
    for number in range(5):
        world.open(number)
    world.connections.shed_youngest()
    assert world.closed == [4, 3, 2]
    world.connections.shed_youngest()
    world.connections.shed_youngest()
    assert world.closed == [4, 3, 2, 1, 0]
    assert not proved.is_shed


def test_one_that_was_closed_before_its_protocol_was_there_is_closed_by_it():
    world = World()
    early = TcpConnection(world.connections, A, 1)
    world.connections.join(early)
    for number in range(5):
        world.open(number)
    assert early.is_shed
    early.closed_by(lambda: world.closed.append("early"))
    assert world.closed == ["early"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_ceilings_hold_and_nothing_is_left_behind(seed):
    dice, world, alive = random.Random(seed), World(), []
    for number in range(400):
        match dice.randrange(7):
            case 0 | 1:
                alive.append(world.open(number, dice.choice([A, B, PROXY, "2001:db8::1"])))
            case 2 if alive:
                alive.pop(dice.randrange(len(alive))).closed()
            case _ if alive:
                one = dice.choice(alive)
                step = dice.choice([one.busy, one.proved, one.unproved, one.idle, lambda one=one: one.asked_by(A)])
                step()
        world.clock.now += dice.random()
        world.connections.sweep(world.clock.now)
        assert world.connections.anonymous <= 8
    for one in alive:
        one.closed()
    assert (world.connections.anonymous, world.connections.with_credential) == (0, 0)
    assert world.connections._networks == {}


@pytest.mark.parametrize(
    ("files", "mib", "ceilings"),
    [
        (256, 1024, Ceilings(files=192, anonymous=64, of_network_at_once=32, of_network=32)),
        (1024, 1024, Ceilings(files=896, anonymous=256, of_network_at_once=128, of_network=128)),
        (1_000_000, 1024, Ceilings(files=875_000, anonymous=8192, of_network_at_once=4096, of_network=512)),
        (1_000_000, 112, Ceilings(files=875_000, anonymous=1024, of_network_at_once=512, of_network=512)),
    ],
)
def test_the_ceilings_follow_files_memory_and_settings(files, mib, ceilings):
    assert Ceilings.of(Settings(), files, mib * 2**20) == ceilings
