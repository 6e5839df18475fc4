"""The command `issue_token`."""
