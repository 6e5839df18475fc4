#!/usr/bin/env python
"""The command line: `manage.py up` runs everything, `manage.py help` lists the rest."""

import os
import sys


def main() -> None:
    """Run one command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apimgmt.settings")
    if "--data-dir" in sys.argv[:-1]:
        # Settings are read before options are parsed, and the engines of a running `up` are found by this folder.
        os.environ["DATA_DIR"] = sys.argv[sys.argv.index("--data-dir") + 1]
    from apimgmt.launcher.plan import asked

    asked()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
