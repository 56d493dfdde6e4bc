"""`python -m clusterserve`."""

from clusterserve.cli import main

main()
