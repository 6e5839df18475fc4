"""Sign-in of operators at an OpenID Connect provider: its settings, its protocol, and whose account it opens."""
