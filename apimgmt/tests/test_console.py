import os
import shlex

import pytest

from apimgmt.launcher.console import Console, commands

READY = {
    "base_url": "http://127.0.0.1:8000",
    "ws_url": "ws://127.0.0.1:8000",
    "mqtt": "127.0.0.1:1883",
    "admin": {
        "url": "http://127.0.0.1:8001/admin/",
        "api_url": "http://127.0.0.1:8001/api/v1/",
        "username": "admin",
        "password": "[bold]pass",
    },
    "keys": {"gold": "apim_key"},
}


def test_it_prints_every_address_and_a_command_for_each_protocol(capsys):
    Console().ready(READY, password="[bold]pass")
    printed = capsys.readouterr().out
    for place in (
        ":8001/dashboards/",
        ":8001/admin/",
        ":8001/api/v1/",
        ":8000/docs/",
        "127.0.0.1:1883",
        "admin / [bold]pass",
    ):
        assert place in printed
    for start in ("curl -H", "curl -N", "mosquitto_sub", "mosquitto_pub", "-m websockets"):
        assert start in printed
    assert "\x1b" not in printed  # no colour where there is no terminal
    assert all(line == line.rstrip() for line in printed.splitlines())


@pytest.mark.parametrize(("name", "command"), commands(READY, "apim_key"))
def test_a_command_is_one_line_that_a_shell_can_read(name, command):
    assert "\n" not in command
    assert shlex.split(command)


def test_the_password_of_an_earlier_run_is_not_printed_again(capsys):
    Console().ready(READY, password=None)
    assert "pass" not in capsys.readouterr().out


def test_without_a_demo_there_is_no_command_without_a_key(capsys):
    Console().ready(READY | {"keys": {}}, password=None)
    assert "X-API-Key" not in capsys.readouterr().out


def test_what_processes_say_steers_no_terminal(capsys):
    Console().report("web-1", "before\x1b[2J\nafter" + "x" * 1000)
    printed = capsys.readouterr().out
    assert printed.startswith("web-1: before [2J after")
    assert len(printed) < 300


def test_a_reader_that_is_gone_stops_nothing(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        os.write(write, b"nobody reads")
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        console = Console()
        console.stopping()
        console.stopped()
        monkeypatch.undo()
