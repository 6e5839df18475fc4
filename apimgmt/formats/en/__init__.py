"""In English, of no country."""
