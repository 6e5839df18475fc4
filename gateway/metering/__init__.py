"""Usage: tallied per process and sent to the control plane."""
