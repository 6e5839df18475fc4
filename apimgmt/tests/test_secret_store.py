import json
import stat
from concurrent.futures import ThreadPoolExecutor

from apimgmt.secret_store import NAMES, load_or_create, write_private


def test_secrets_are_made_once_and_are_private(tmp_path):
    made = load_or_create(tmp_path / "var")
    load_or_create.cache_clear()
    assert load_or_create(tmp_path / "var") == made
    assert set(made) == set(NAMES)
    assert len(set(made.values())) == len(NAMES)
    assert stat.S_IMODE((tmp_path / "var" / "secrets.json").stat().st_mode) == 0o600


def test_two_processes_at_once_agree(tmp_path):
    make = load_or_create.__wrapped__  # without the memory that one process has
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(tmp_path / "var"), range(8)))
    assert all(one == made[0] for one in made)


def test_a_secret_that_an_older_version_lacked_is_added(tmp_path):
    write_private(tmp_path / "secrets.json", json.dumps({"secret_key": "kept"}))
    made = load_or_create(tmp_path)
    assert made["secret_key"] == "kept"
    assert set(made) == set(NAMES)


def test_a_private_file_is_replaced_whole(tmp_path):
    path = tmp_path / "ready.json"
    path.write_text("before")
    path.chmod(0o644)
    write_private(path, "after")
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["ready.json"]
