"""A profile on a picture: each box has its time, and the more of the whole it takes, the darker it is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from minigraph.core.table import duration
from minigraph.driver.profile import Cost

COLD, HOT = (255, 255, 255), (240, 128, 40)  # black letters can be read on both


class Heat:
    """costs: of boxes, by whatever names them. total: seconds of a run, of which a part may be in no box."""

    def __init__(self, costs: Iterable[tuple[Hashable, Cost]], total: float):
        self.costs: dict[Hashable, Cost] = {}
        for box, cost in costs:
            self.costs[box] = self.costs.get(box, Cost()) + cost
        self.total = total
        self._most = max((cost.seconds for cost in self.costs.values()), default=0.0)

    @property
    def legend(self) -> str:
        """What the colours mean, and how much of the time is not in the picture."""
        shown = sum(cost.seconds for cost in self.costs.values())
        rest = self.total - shown
        line = f"{duration(self.total)} a run; the darker, the more of it"
        return line + (f"; {rest / self.total:.0%} at what is not in this picture" if rest > 0.005 * self.total else "")

    def line(self, box: Hashable) -> str:
        """0.351 ms, 20%, 457 GFLOP/s; nothing for a box without time."""
        cost = self.costs.get(box, Cost())
        if not cost.seconds:
            return ""
        share = cost.seconds / self.total
        parts = [duration(cost.seconds), f"{share:.0%}" if share >= 0.005 else "< 1%"]
        speed = cost.flops / cost.seconds / 1e9
        return ", ".join([*parts, f"{speed:.3g} GFLOP/s"] if speed >= 0.1 else parts)

    def look(self, box: Hashable) -> Mapping[str, str]:
        """The box's fill: white for no time, full for the most of all boxes."""
        share = self.costs.get(box, Cost()).seconds / self._most if self._most else 0.0
        mixed = (round(cold + share * (hot - cold)) for cold, hot in zip(COLD, HOT))
        return {"fillcolor": "#" + "".join(f"{part:02X}" for part in mixed)}
