"""What is open, and how it ends."""
