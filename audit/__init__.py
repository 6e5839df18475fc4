"""Every change as an immutable event; the relay to the data plane; the configuration as of any instant."""
