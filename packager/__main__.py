"""`python -m packager` is the command `edgepack`."""

from packager.cli.main import main

main()
