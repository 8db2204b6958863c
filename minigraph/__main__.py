"""python -m minigraph: the command line."""

import sys

from minigraph.tools.command import main

if __name__ == "__main__":
    sys.exit(main())
