"""The memory budget, with sizes as arguments."""

import pytest

from gateway.listening.machine import cgroup_limits, memory_bytes
from gateway.listening.memory import ROOM_MIN_BYTES, STAYS_TIGHT_SAMPLES, Level, MemoryBudget, resident_bytes

MIB = 2**20


class Sizes:
    """Reads sizes that the test sets, in MiB."""

    def __init__(self, mib):
        self.mib = mib

    def __call__(self):
        return self.mib * MIB


def levels(budget, sizes, series):
    for mib in series:
        sizes.mib = mib
        yield budget.sample()


def test_levels_are_entered_one_by_one_and_left_well_below():
    sizes = Sizes(100)
    budget = MemoryBudget(200 * MIB, sizes)
    series = [174, 175, 189, 190, 250, 180, 175, 174, 160, 156, 174, 175]
    assert list(levels(budget, sizes, series)) == [
        Level.ENOUGH, Level.TIGHT, Level.TIGHT, Level.FULL, Level.FULL, Level.FULL, Level.FULL, Level.TIGHT,
        Level.TIGHT, Level.TIGHT, Level.TIGHT, Level.TIGHT,
    ]  # fmt: skip


def test_memory_must_be_enough_for_a_while():
    sizes = Sizes(100)
    budget = MemoryBudget(200 * MIB, sizes)
    assert list(levels(budget, sizes, [500])) == [Level.FULL]
    assert set(levels(budget, sizes, [100] * STAYS_TIGHT_SAMPLES)) == {Level.TIGHT}
    assert list(levels(budget, sizes, [160, *[154] * STAYS_TIGHT_SAMPLES])) == [Level.TIGHT] * (STAYS_TIGHT_SAMPLES + 1)
    assert list(levels(budget, sizes, [154])) == [Level.ENOUGH]


def test_a_budget_below_the_size_at_the_start_leaves_room_to_serve():
    sizes = Sizes(100)
    budget = MemoryBudget(1, sizes)
    assert budget.max_bytes == 100 * MIB + ROOM_MIN_BYTES
    assert budget.sample() is Level.ENOUGH


def test_the_resident_size_is_that_of_this_process():
    before = resident_bytes()
    block = bytearray(64 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    assert resident_bytes() - before > 60 * MIB


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/a/b\n", {"memory.max": "max\n", "a/memory.max": "2048\n", "a/b/memory.max": "1024\n"}, [1024, 2048]),
        ("0::/\n", {"memory.max": "4096\n"}, [4096]),
        ("0::/gone\n", {}, []),
        ("5:cpu:/a\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "512\n"}, [512]),
        ("", {}, []),
    ],
)
def test_the_limits_of_control_groups_are_read_up_to_the_root(tmp_path, own, files, limits):
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert cgroup_limits(tmp_path / "own", tmp_path / "groups") == limits


def test_this_machine_has_memory():
    assert memory_bytes() > 64 * MIB
