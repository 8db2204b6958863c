"""Python's garbage collector, paused while a graph is made from a graph.

All that is made then stays alive, so each of the collector's passes over it finds nothing; on large graphs those passes
would take as long as the work.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No automatic collection inside; as it was before, afterwards. Usable as a decorator."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
