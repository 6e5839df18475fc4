"""Runs each test of HTTP calls by both drivers of the path: in the folders whose conftest imports ``driver``."""

from __future__ import annotations

import pytest

from gateway.tests import driving
from gateway.tests.driving import Driver

BY_THE_PATH = pytest.mark.parametrize("driver", [Driver.PATH], indirect=True, ids=[Driver.PATH.value])
"""For tests that replace a part of the path, or need an upstream to which no connection is open."""


@pytest.fixture(autouse=True, params=list(Driver), ids=[driver.value for driver in Driver])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Let the planes of the test serve plain calls by this driver."""
    monkeypatch.setattr(driving, "driver", request.param)
    chosen: Driver = request.param
    return chosen
