#!/usr/bin/env python
"""The command line: `manage.py up` runs everything, `manage.py help` lists the rest."""

import os
import sys


def main() -> None:
    """Run one command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apimgmt.settings")
    _take_data_dir(sys.argv)
    from apimgmt.env import InvalidSetting
    from apimgmt.launcher.plan import reserve_for_up

    reserve_for_up()
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except InvalidSetting as error:
        sys.exit(f"error: {error}")


def _take_data_dir(arguments: list[str]) -> None:
    """Take --data-dir out of the arguments of any command, into the environment.

    Settings are read before options are parsed, and the engines of a running `up` are found by this folder.
    """
    for place, argument in enumerate(arguments):
        name, is_joined, value = argument.partition("=")
        if name != "--data-dir":
            continue
        if not is_joined:
            value = (
                arguments.pop(place + 1)
                if len(arguments) > place + 1
                else sys.exit("error: --data-dir needs a folder.")
            )
        os.environ["DATA_DIR"] = value
        del arguments[place]
        return


if __name__ == "__main__":
    main()
