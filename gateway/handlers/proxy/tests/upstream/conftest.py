import pytest


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def is_direct(request):
    return request.param
