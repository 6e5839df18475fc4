"""What an operator types about the audit log."""
