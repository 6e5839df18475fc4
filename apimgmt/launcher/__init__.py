"""`manage.py up`: starts all processes, supervises them, and stops them in order."""
