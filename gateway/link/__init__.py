"""NATS: the connection, requests, and leader election."""
