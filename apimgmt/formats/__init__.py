"""How the pages write instants and numbers."""
