"""One running product for all tests that look at it from outside."""

import pytest

from tests.product import Product


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    running = Product(tmp_path_factory.mktemp("product") / "var")
    yield running
    assert running.stop() == 0
