"""`python -m genesplice`."""

from genesplice.cli import main

main()
