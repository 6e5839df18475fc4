import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.log import disk
from gateway.log.disk import Disk

GIB = 1024**3


@pytest.fixture
def system(monkeypatch):
    """A system whose disk is as full as a test says, and which counts how often it is asked."""
    system = SimpleNamespace(free=50 * GIB, size=100 * GIB, nodes_free=50_000, nodes=100_000, requests=0)

    def statvfs(folder):
        system.requests += 1
        files = {"f_favail": system.nodes_free, "f_files": system.nodes}
        return SimpleNamespace(f_bavail=system.free, f_blocks=system.size, f_frsize=1, **files)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return system


def test_it_is_full_before_nothing_is_free(system):
    looked = Disk(Path("/store"), GIB)
    system.free = GIB
    assert not looked.is_full
    system.free = GIB - 1
    assert looked.is_full
    system.free = GIB
    assert not looked.is_full


def test_of_a_small_disk_a_tenth_is_kept_free(system):
    system.size, system.free = 64 * 1024**2, 7 * 1024**2
    assert not Disk(Path("/store"), GIB).is_full
    system.free = 6 * 1024**2
    assert Disk(Path("/store"), GIB).is_full


def test_it_is_full_where_hardly_a_file_may_be_made(system):
    system.nodes_free = disk.NODES_FREE_MIN
    looked = Disk(Path("/store"), GIB)
    assert not looked.is_full
    system.nodes_free -= 1
    assert looked.is_full


def test_a_disk_that_counts_no_files_is_not_full_of_them(system):
    system.nodes = system.nodes_free = 0
    looked = Disk(Path("/store"), GIB)
    assert not looked.is_full
    assert not looked.is_full
    assert system.requests == 1


def test_the_system_is_asked_now_and_then_while_much_is_free_and_each_time_near_the_end(system):
    now = 0.0
    looked = Disk(Path("/store"), GIB, lambda: now)
    for _ in range(10):
        assert not looked.is_full
    assert system.requests == 1
    now += disk.READ_EVERY_S
    system.free = 3 * GIB
    for _ in range(10):
        assert not looked.is_full
    assert system.requests == 11


def test_a_store_elsewhere_is_never_full_here(system):
    system.free = 0
    assert not Disk(None, GIB).is_full


def test_a_folder_that_is_not_there_is_not_full(tmp_path):
    assert not Disk(tmp_path / "none", GIB).is_full
