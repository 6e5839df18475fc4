import json

import pytest

from apimgmt import env, settings
from apimgmt.kept import Retention
from gateway.config import Config


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON"])
def test_a_flag_says_yes(monkeypatch, word):
    monkeypatch.setenv("NO_DEMO", word)
    assert env.flag("NO_DEMO")


@pytest.mark.parametrize("word", ["", "0", "false", "No", "off"])
def test_a_flag_says_no(monkeypatch, word):
    monkeypatch.setenv("NO_DEMO", word)
    assert not env.flag("NO_DEMO", default=True)


@pytest.mark.parametrize(
    ("read", "word"),
    [
        (lambda: env.flag("ODD"), "perhaps"),
        (lambda: env.number("ODD", 1), "1.5"),
        (lambda: env.number("ODD", 1), "many"),
        (lambda: env.seconds("ODD", 1), "soon"),
        (lambda: env.networks("ODD"), "10.0.0.0/64"),
    ],
)
def test_what_cannot_be_read_is_named(monkeypatch, read, word):
    monkeypatch.setenv("ODD", word)
    with pytest.raises(env.InvalidSetting, match="ODD"):
        read()


def test_lists_and_networks_forgive_spaces(monkeypatch):
    monkeypatch.setenv("TRUSTED_PROXIES", " 10.0.0.0/8 ,, ::1 ")
    assert [str(network) for network in env.networks("TRUSTED_PROXIES")] == ["10.0.0.0/8", "::1/128"]


def test_an_engine_is_found_by_the_environment_before_the_data_directory(tmp_path, monkeypatch):
    (tmp_path / "engines.json").write_text(json.dumps({"REDIS_URL": "redis://embedded"}))
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert env.engine_url("REDIS_URL") == "redis://embedded"
    monkeypatch.setenv("REDIS_URL", "redis://named")
    assert env.engine_url("REDIS_URL") == "redis://named"


def test_without_engines_a_data_plane_process_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("NATS_URL", raising=False)
    with pytest.raises(env.InvalidSetting, match="NATS_URL is not set"):
        env.gateway_config("web")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:p%40ss@host:7001/0", "redis://:p%40ss@host:7001/2"),
        ("redis://host", "redis://host/2"),
        ("rediss://host/?ssl_cert_reqs=none", "rediss://host/2?ssl_cert_reqs=none"),
        ("redis://host/7", "redis://host/7"),
        ("", ""),
    ],
)
def test_another_database_of_the_same_redis(url, expected):
    assert env.redis_database(url, 2) == expected


@pytest.mark.parametrize(
    ("settings", "url", "host"),
    [
        ({"HOST": "0.0.0.0", "PORT": "81"}, "http://127.0.0.1:81", "127.0.0.1"),
        ({"HOST": "::1", "PORT": "81"}, "http://[::1]:81", "[::1]"),
        ({"PUBLIC_URL": "https://api.example/"}, "https://api.example", "api.example"),
    ],
)
def test_the_address_that_callers_see(monkeypatch, settings, url, host):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert (env.public_url(), env.public_host()) == (url, host)


@pytest.mark.parametrize(
    ("settings", "url", "host"),
    [
        ({}, "http://127.0.0.1:8001", "127.0.0.1"),
        (
            {"HOST": "192.0.2.1", "PORT": "81", "PUBLIC_URL": "https://api.example"},
            "http://127.0.0.1:8001",
            "127.0.0.1",
        ),
        ({"ADMIN_HOST": "::", "ADMIN_PORT": "82"}, "http://127.0.0.1:82", "127.0.0.1"),
        ({"ADMIN_PUBLIC_URL": "https://admin.example/"}, "https://admin.example", "admin.example"),
    ],
)
def test_the_address_of_the_operators_pages_is_their_own(monkeypatch, settings, url, host):
    for name in ("ADMIN_HOST", "ADMIN_PORT", "ADMIN_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert (env.admin_public_url(), env.admin_public_host()) == (url, host)


def test_every_number_of_a_process_can_be_set(monkeypatch):
    monkeypatch.setenv("HEAD_TIMEOUT_S", "2.5")
    monkeypatch.setenv("BODY_MAX_BYTES", "1000")
    read = env.bounds()
    assert (read["head_timeout_s"], read["body_max_bytes"]) == (2.5, 1000)
    assert read["drain_s"] == Config.__dataclass_fields__["drain_s"].default


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "1e300"])
def test_a_bound_is_a_sensible_number(monkeypatch, word):
    monkeypatch.setenv("DRAIN_S", word)
    with pytest.raises(env.InvalidSetting, match="DRAIN_S"):
        env.bounds()


def test_the_options_of_tls_of_a_database_are_read_and_others_are_refused(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://me@db.example/name?sslmode=verify-full&sslrootcert=/etc/ca.pem")
    options = {"connect_timeout": 5, "sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}
    assert settings._database()["OPTIONS"] == options
    for query in ("sslmod=verify-full", "sslmode=verify-full&options=-c%20x", "host=elsewhere"):
        with pytest.raises(env.InvalidSetting, match="it may have sslmode"):
            env.postgres_options(query)


def test_commands_beside_up_keep_what_it_was_started_to_keep(tmp_path, monkeypatch):
    monkeypatch.setenv("RETENTION_CONNECTIONS_DAYS", "365")
    monkeypatch.setenv("RETENTION_AUDIT_DIR", "/srv/audit")
    env.publish_retention()
    assert (tmp_path / env.RETENTION_FILE).stat().st_mode & 0o777 == 0o600
    for name in ("RETENTION_CONNECTIONS_DAYS", "RETENTION_AUDIT_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RETENTION_AUDIT_DAYS", "30")
    kept = env.retention()
    assert (kept.connections_days, kept.audit_days) == (365, 30)
    assert env.retention_text("RETENTION_AUDIT_DIR") == "/srv/audit"


def test_what_up_is_started_without_is_a_default_again(tmp_path, monkeypatch):
    (tmp_path / env.RETENTION_FILE).write_text('{"RETENTION_CONNECTIONS_DAYS": "365"}')
    monkeypatch.delenv("RETENTION_CONNECTIONS_DAYS", raising=False)
    env.publish_retention()
    assert env.retention().connections_days == Retention().connections_days
    monkeypatch.setenv("RETENTION_CONNECTIONS_DAYS", "-1")
    with pytest.raises(env.InvalidSetting, match="RETENTION_CONNECTIONS_DAYS"):
        env.publish_retention()


def test_an_openid_connect_provider_is_read_with_its_groups(monkeypatch):
    assert env.oidc() is None
    good = {
        "OIDC_ISSUER": "https://id.example",
        "OIDC_CLIENT_ID": "gateway",
        "OIDC_ALLOWED_EMAILS": "Ann@Example.com, @ours.example",
        "OIDC_GROUPS": "ops=Keepers of keys, read=Readers",
        "ADMIN_PUBLIC_URL": "https://admin.example/",
    }
    for name, value in good.items():
        monkeypatch.setenv(name, value)
    provider = env.oidc()
    assert provider.redirect_uri == "https://admin.example/dashboards/oidc/callback"
    assert provider.allowed_emails == {"ann@example.com", "@ours.example"}
    assert dict(provider.groups) == {"ops": "Keepers of keys", "read": "Readers"}
    assert (provider.creates_accounts, provider.links_by_email, provider.algorithms) == (False, False, ("RS256",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OIDC_ISSUER", "http://id.example"),
        ("OIDC_ISSUER", "https://user@id.example"),
        ("OIDC_CLIENT_ID", ""),
        ("OIDC_ALGORITHMS", "HS256"),
        ("OIDC_ALGORITHMS", "RS256,none"),
        ("OIDC_SCOPES", "email"),
        ("OIDC_ALLOWED_GROUPS", ""),
        ("OIDC_GROUPS", "ops"),
    ],
)
def test_an_openid_connect_provider_that_is_not_safe_is_refused(monkeypatch, name, value):
    good = {"OIDC_ISSUER": "https://id.example", "OIDC_CLIENT_ID": "gateway", "OIDC_ALLOWED_GROUPS": "ops"}
    for setting, text in (good | {name: value}).items():
        monkeypatch.setenv(setting, text)
    with pytest.raises(env.InvalidSetting, match=name):
        env.oidc()
