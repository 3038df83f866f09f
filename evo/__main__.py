"""`python -m evo` is `evo`."""

from evo.cli import main

main()
