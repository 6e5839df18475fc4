"""The picture of the control plane, and its feed."""
