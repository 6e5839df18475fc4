"""The event log: events stored in JetStream, read back and fanned out live."""
