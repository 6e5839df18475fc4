"""Usage, tallied and sent up."""
