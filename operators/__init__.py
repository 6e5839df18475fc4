"""The parts that the management API and the admin of every app have in common."""
