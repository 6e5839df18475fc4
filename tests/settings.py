"""The product's settings with a data directory of the tests' own, and no engine of a product that runs here.

Settings are read when pytest-django starts, before any conftest: so what they read is set here.
"""

import atexit
import os
import shutil
import tempfile

_MARK = "TESTS_DATA_DIR"

if _MARK not in os.environ:  # a process that a test starts keeps what the test gave it
    os.environ[_MARK] = os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="apimgmt-tests-")
    atexit.register(shutil.rmtree, os.environ[_MARK], ignore_errors=True)
    for _name in ("DATABASE_URL", "REDIS_URL", "NATS_URL"):
        os.environ.pop(_name, None)
    if "TESTS_DATABASE_URL" in os.environ:  # the same tests on another database
        os.environ["DATABASE_URL"] = os.environ["TESTS_DATABASE_URL"]
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 40)
    os.environ.setdefault("KEY_PEPPER", "only-for-tests")

from apimgmt.settings import *  # noqa: E402, F403

# Passwords of tests are worth nothing, and a good hasher costs each of them half a second.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# No relay runs beside most tests.
PUBLISHED_WITHIN_S = 0.0
