import pytest

from gateway.tests.identity_provider import identity_provider


@pytest.fixture
async def provider():
    async with identity_provider() as made:
        yield made
