"""What an operator types about keys."""
