"""``python -m tests.architecture``: print the violations of the code's shape; exit with 1 if there are any."""

import sys

from tests.architecture.rules import violations

if __name__ == "__main__":
    found = violations()
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
