"""`manage.py up`: starts everything, keeps it running, tells where it is, and leaves nothing behind."""
