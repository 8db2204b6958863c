"""What a machine can do at best in a second, which is measured once and kept in the cache folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from minigraph.backends.c import cache
from minigraph.core.state import write_whole


@dataclass(frozen=True)
class Rates:
    """In a second: float32 operations, and bytes of memory read and written."""

    flops: float
    bytes: float


def kept(fingerprint: str, measured: Callable[[], Rates]) -> Rates:
    """From the cache folder, or measured now. fingerprint: a key of all that a measurement is true for."""
    file = cache.where() / cache.PEAK.format(fingerprint)
    with suppress(OSError, ValueError, TypeError, KeyError):
        there = json.loads(file.read_text(encoding="utf-8"))
        return Rates(float(there["flops"]), float(there["bytes"]))
    found = measured()
    with suppress(OSError):  # a folder that cannot be written: the next process measures again
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, json.dumps({"flops": found.flops, "bytes": found.bytes}).encode())
    return found
