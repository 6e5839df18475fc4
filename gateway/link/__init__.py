"""NATS: the connection, requests to the control plane, and leader election."""
