"""Draws the graphs of cuDNN for patterns, and lets its frontend validate them: python cudnn_draws.py FILE

FILE is a pickled list of patterns. Prints a line for each that is no graph of cuDNN's. A process of its own, since the
frontend looks for the library once, when it is imported, and what it finds here knows a version number alone.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from minigraph.backends.cupy.libraries import cudnn


def main(file: str) -> None:
    module = cudnn.loaded()
    handle = module.Handle(1, 0, 0)  # of no GPU: nobody looks at it who only validates
    for number, pattern in enumerate(pickle.loads(Path(file).read_bytes())):
        try:
            cudnn.drawn(module, pattern, handle=handle).validate()
        except (RuntimeError, ValueError) as error:
            print(f"{number} {pattern}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
