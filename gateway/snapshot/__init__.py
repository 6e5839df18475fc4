"""The snapshot: a process's copy of what the control plane configures, and its feed."""
