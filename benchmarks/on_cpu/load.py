"""What other processes take of the processor meanwhile, on Linux."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Load:
    """In cores, on average: what this process used, what others did, and what the machine below took for itself.

    None where the system does not say.
    """

    own: float
    others: float | None
    stolen: float | None


class Watch:
    """It begins to count when it is made."""

    def __init__(self) -> None:
        self._begin, self._own, self._all = time.perf_counter(), _own(), _all()

    def load(self) -> Load:
        """Since then."""
        seconds, own, every = time.perf_counter() - self._begin, _own() - self._own, _all()
        if every is None or self._all is None:
            return Load(own / seconds, None, None)
        busy, stolen = (now - before for now, before in zip(every, self._all))
        return Load(own / seconds, max(0.0, busy - own) / seconds, stolen / seconds)


def _own() -> float:
    """Seconds of this process, and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _all() -> tuple[float, float] | None:
    """Seconds of all processes, and stolen ones."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, first.split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / tick, stolen / tick
