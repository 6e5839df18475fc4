"""The audit log of every change, its relay to the data plane, and the configuration as of any instant."""
