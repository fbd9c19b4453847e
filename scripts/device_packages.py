"""Installs what emulated machines need (qemu, the tools that make disks, a compiler for Cortex-M), or says the command."""

import sys

from agent.contract.errors import DeviceError
from packager.emulate.tools import find_program, install_packages, missing_packages


def main() -> int:
    """The exit status: 0 when nothing is missing any more."""
    missing = missing_packages()
    if find_program("arm-none-eabi-gcc") is None:
        missing += ["gcc-arm-none-eabi", "libnewlib-arm-none-eabi"]
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
