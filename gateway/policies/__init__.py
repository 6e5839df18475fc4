"""One file a policy; a route names them in order."""
