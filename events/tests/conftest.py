from audit.tests.conftest import link, nats_server
from operators.tests.conftest import api, operator

__all__ = ["api", "link", "nats_server", "operator"]
