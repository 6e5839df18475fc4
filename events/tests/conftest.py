from audit.tests.conftest import link, nats_server

__all__ = ["link", "nats_server"]
