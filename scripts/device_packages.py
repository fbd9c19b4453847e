"""Installs what emulated machines need (qemu and the tools that make disks), or says the one command that does."""

import sys

from agent.contract.errors import DeviceError
from packager.emulate.tools import install_packages, missing_packages


def main() -> int:
    """The exit status: 0 when nothing is missing any more."""
    missing = missing_packages()
    if not missing:
        return 0
    try:
        install_packages(missing, print)
    except DeviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
