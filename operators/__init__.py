"""How operators come in: what the management API and the admin of every app have in common."""
