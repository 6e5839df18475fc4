"""One product for all conformance tests."""

import pytest

from tests.product import Product


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    running = Product(tmp_path_factory.mktemp("conformance") / "var")
    yield running
    assert running.stop() == 0
