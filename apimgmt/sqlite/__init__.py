"""SQLite as the database of Django, with writers that wait in turns (see ``base``)."""
