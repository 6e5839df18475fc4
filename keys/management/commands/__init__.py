"""The commands `issue_key` and `revoke_key`."""
