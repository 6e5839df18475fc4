"""The file of SQLite shrinks again once rows are deleted, also one that an earlier version created."""

import sqlite3

import pytest
from django.conf import settings as project
from django.db import connection

from apimgmt.launcher import first_run
from apimgmt.sqlite import free_pages

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("sqlite" not in project.DATABASES["default"]["ENGINE"], reason="SQLite is not in use"),
]


def test_free_pages_are_returned_in_small_steps(monkeypatch):
    monkeypatch.setattr(free_pages, "SPARE_PAGES", 10)
    free_pages.ensure_incremental()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE large (data BLOB)")
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
            "INSERT INTO large SELECT randomblob(4096) FROM n"
        )
        before = free_pages.pragma("page_count")
        cursor.execute("DROP TABLE large")
    steps = list(free_pages.return_free_pages(None))
    assert len(steps) > 3
    assert max(steps) <= free_pages.PAGES
    assert free_pages.pragma("page_count") < before - 2500


def test_a_file_that_cannot_shrink_is_rewritten_once(tmp_path):
    old = sqlite3.connect(tmp_path / "old.sqlite3")
    old.execute("CREATE TABLE t (x)")
    old.close()
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = tmp_path / "old.sqlite3"
    try:
        assert free_pages.pragma("auto_vacuum") == 0
        assert list(free_pages.return_free_pages(None)) == []
        assert free_pages.ensure_incremental()
        connection.close()
        assert free_pages.pragma("auto_vacuum") == free_pages.INCREMENTAL
        assert not free_pages.ensure_incremental()
        assert free_pages.pragma("journal_size_limit") == 67_108_864
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name


def test_of_the_copies_before_upgrades_the_newest_stay(tmp_path):
    names = [f"apimgmt-2026010{number}T000000.sqlite3" for number in range(1, 7)]
    for name in (*names, "apimgmt.sqlite3"):
        (tmp_path / name).touch()
    first_run.delete_old_copies(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[-3:], "apimgmt.sqlite3"])
