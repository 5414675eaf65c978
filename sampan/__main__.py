"""`python -m sampan`."""

from sampan.cli.main import entry

entry()
