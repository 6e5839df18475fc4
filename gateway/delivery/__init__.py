"""Delivery of webhooks: the process, its workers, the order of events, and the lag watch."""
