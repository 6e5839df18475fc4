"""Live events offered to listeners by lots, in turns of the event loop."""

import asyncio

import pytest

from gateway.log import lot as lots
from gateway.log.event import Event
from gateway.log.lot import LOT_MAX_BYTES, LOT_MAX_EVENTS, LOTS_MAX, HandingOut, Lot


def event(id_, data=b"1", **more):
    return Event("trades", "trades", id_, "2026-11-30T00:00:00Z", data, **more)


class Listener:
    def __init__(self):
        self.lots = []

    def offer_lot(self, lot):
        self.lots.append((lot.stream, [each.id for each in lot.events]))

    @property
    def ids(self):
        return [id_ for _, ids in self.lots for id_ in ids]


@pytest.fixture
async def handing_out():
    return HandingOut()


async def test_what_arrives_in_one_turn_is_offered_together_in_the_next(handing_out):
    listeners = [Listener(), Listener()]
    for id_ in (1, 2, 3):
        handing_out.add("T", event(id_), listeners)
    assert listeners[0].lots == []
    await asyncio.sleep(0)
    assert [each.lots for each in listeners] == [[("T", [1, 2, 3])]] * 2


async def test_many_listeners_take_several_turns_and_what_arrives_meanwhile_is_the_next_lot(handing_out, monkeypatch):
    monkeypatch.setattr(lots, "LISTENERS_PER_TURN", 4)
    listeners = [Listener() for _ in range(10)]
    handing_out.add("T", event(1), listeners)
    for id_ in range(2, 20):
        await asyncio.sleep(0)
        handing_out.add("T", event(id_), listeners)
    handing_out.finish()
    assert all(each.ids == [*range(1, 20)] for each in listeners)
    assert all(len(each.lots) < 10 for each in listeners)


async def test_other_callbacks_run_between_the_turns(handing_out, monkeypatch):
    monkeypatch.setattr(lots, "LISTENERS_PER_TURN", 4)
    listeners = [Listener() for _ in range(10)]
    handing_out.add("T", event(1), listeners)
    served = []
    for _ in range(3):
        await asyncio.sleep(0)
        served.append(sum(bool(each.lots) for each in listeners))
    assert served == [4, 8, 10]


async def test_events_of_two_streams_are_never_in_one_lot(handing_out):
    listener = Listener()
    for id_, stream in ((1, "T"), (7, "N"), (2, "T")):
        handing_out.add(stream, event(id_), [listener])
    handing_out.finish()
    assert listener.lots == [("T", [1]), ("N", [7]), ("T", [2])]


async def test_a_lot_is_bounded_in_events_and_bytes(handing_out):
    listener = Listener()
    for id_ in range(LOT_MAX_EVENTS + 1):
        handing_out.add("T", event(id_), [listener])
    handing_out.add("T", event(1000, b"x" * LOT_MAX_BYTES), [listener])
    handing_out.finish()
    assert [len(ids) for _, ids in listener.lots] == [LOT_MAX_EVENTS, 1, 1]


async def test_who_joins_is_not_offered_what_had_arrived(handing_out):
    early, late = Listener(), Listener()
    handing_out.add("T", event(1), [early])
    handing_out.close_lot()
    handing_out.add("T", event(2), [early, late])
    handing_out.finish()
    assert (early.ids, late.ids) == ([1, 2], [2])


async def test_a_listener_that_fails_costs_the_others_nothing(handing_out, caplog):
    class Failing:
        def offer_lot(self, lot):
            raise ValueError

    listener = Listener()
    handing_out.add("T", event(1), [Failing(), listener])
    await asyncio.sleep(0)
    handing_out.add("T", event(2), [Failing(), listener])
    await asyncio.sleep(0)
    assert listener.ids == [1, 2]
    assert "delivering to a listener failed" in caplog.text


async def test_so_many_lots_wait_and_then_there_is_room_once_one_is_offered(handing_out, monkeypatch):
    monkeypatch.setattr(lots, "LISTENERS_PER_TURN", 1)
    for id_ in range(LOTS_MAX):
        handing_out.close_lot()
        handing_out.add("T", event(id_), [Listener()])
    assert handing_out.is_full
    await asyncio.wait_for(handing_out.room(), 20)
    assert not handing_out.is_full


async def test_a_form_is_made_once_for_all_who_ask():
    lot, made = Lot("T", event(1, b"12")), []

    def form(each):
        made.append(each.id)
        return b"<%d>" % each.id

    lot.add(event(2, b"12"))
    assert [lot.joined(form) for _ in range(3)] == [b"<1><2>"] * 3
    assert (made, lot.size, lot.last.id, lot.expires) == ([1, 2], 4, 2, False)
    lot.add(event(3, expires_at=1.0))
    assert lot.expires
