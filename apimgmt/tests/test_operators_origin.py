"""What the operators' origin refuses before any page or session is looked at."""

import json
import os
import subprocess
import sys

import pytest

PATHS = ["/api/v1/tiers", "/admin/", "/dashboards/usage", "/docs/", "/metrics"]


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8001", "localhost.attacker.example"])
@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_was_rebound_to_this_address_reads_nothing(admin_client, path, host):
    answer = admin_client.get(path, HTTP_HOST=host)
    assert answer.status_code == 400
    assert b"gold" not in answer.content


@pytest.mark.parametrize("path", PATHS)
def test_no_request_is_echoed_by_trace(admin_client, path):
    answer = admin_client.trace(path, HTTP_X_SECRET="s3cret")
    assert answer.status_code == 405
    assert b"s3cret" not in answer.content


def test_behind_tls_cookies_are_bound_to_their_host(tmp_path):
    program = """
import json
from apimgmt import settings
names = ("SESSION_COOKIE_", "CSRF_COOKIE_", "DEVICE_COOKIE_")
print(json.dumps({name: value for name, value in vars(settings).items() if name.startswith(names)}))
"""
    environment = os.environ | {"DATA_DIR": str(tmp_path), "ADMIN_PUBLIC_URL": "https://admin.example"}
    body = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    cookies = json.loads(body.stdout)
    assert {value for name, value in cookies.items() if name.endswith("_NAME")} == {
        "__Host-sessionid", "__Host-csrftoken", "__Host-apimgmt_device"
    }  # fmt: skip
    for cookie in ("SESSION", "CSRF"):
        flags = [cookies[f"{cookie}_COOKIE_{flag}"] for flag in ("SECURE", "HTTPONLY", "SAMESITE")]
        assert flags == [True, True, "Lax"]
