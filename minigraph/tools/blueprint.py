"""A plan as pictures: its steps with what flows between them, and the memory that its values share.

The steps stand from top to bottom. Those in one row run without waiting for each other; a bar between two rows is a
barrier, at which all threads wait. A box has the kernel and the nodes that it computes, an arrow the values that are
written by one step and read by the next few. What is read much later than it was written, such as an activation by its
gradient, is named in the box that reads it: an arrow across the whole page says nothing.

The memory is a chart of offset against step: each value is a rectangle from the step that writes it to the last that
reads it, as high as it has bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

import graphviz  # type: ignore[import-untyped]

from minigraph.backends.plan import Buffer, Plan, Step
from minigraph.backends.work import bytes_read, shares
from minigraph.core.errors import expect
from minigraph.core.table import begun, quantity, shortened
from minigraph.driver.profile import Profile
from minigraph.tools.dot import label
from minigraph.tools.heat import Heat
from minigraph.tools.labels import wrapped
from minigraph.tools.style import EDGE, FONT, GRAPH, INVISIBLE, LOOKS, NODE

Scale = Callable[[float], float]
NEAR = 4  # steps that an arrow may cross
LINES = 4  # of names in a box
BAR = {"shape": "box", "style": "filled", "fillcolor": "#444444", "height": "0.03", "width": "2", "fixedsize": "true"}
PLAIN = {"fillcolor": "#F3F1E7", "color": "#77735F"}


def steps_dot(plan: Plan, profile: Profile | None = None) -> str:
    """The steps as DOT text. profile: of the program whose plan it is; each box then has its time and its colour."""
    rows = list(_rows(plan))
    box_of = {number: box for row in rows for box in row for number in box}
    heat = None if profile is None else _heat(plan, profile, box_of)
    page = graphviz.Digraph(
        "minigraph", graph_attr={**GRAPH, "label": _title(plan, heat)}, node_attr=NODE, edge_attr=EDGE
    )
    for number, row in enumerate(rows):
        with page.subgraph(graph_attr={"rank": "same"}) as line:
            for box in row:
                _box(line, plan, box, heat)
        if number:
            above, below = rows[number - 1][0][0], row[0][0]
            page.node(f"bar{number}", " ", tooltip="a barrier: all threads wait for each other", group="bars", **BAR)
            page.edge(f"step{above}", f"bar{number}", weight="0", **INVISIBLE)
            page.edge(f"bar{number}", f"step{below}", weight="0", **INVISIBLE)
            if number > 1:
                page.edge(f"bar{number - 1}", f"bar{number}", weight="50", **INVISIBLE)
    for (start, end), names in _flows(plan, box_of).items():
        lines = names if len(names) <= LINES else [*names[: LINES - 1], f"and {len(names) - LINES + 1} more"]
        text = "".join(f"\u00a0{label(line)}\\l" for line in lines)
        page.edge(f"step{start}", f"step{end}", text, color=LOOKS["forward"].line)
    return page.source


def _title(plan: Plan, heat: Heat | None) -> str:
    sizes = "".join(f", {name} <= {n}" for name, n in plan.sizes.items())
    lines = [
        f"plan of {plan.graph.name}: {len(plan.steps)} steps{sizes}",
        "a bar is a barrier: all threads wait for each other; steps in a row do not wait",
        *([heat.legend] if heat else []),
    ]
    return "".join(f"{label(line)}\\l" for line in lines)


def _heat(plan: Plan, profile: Profile, box_of: dict[int, list[int]]) -> Heat:
    """The times of boxes, by the first step in each."""
    planned = [plan.kernel(step) for step in plan.steps]
    same = planned == [row.kind for row in profile.steps]
    expect(same, "the profile of {!r} is of another plan: profile with the sizes of the last call", profile.graph.name)
    costs = ((box_of[number][0], row.cost) for number, row in enumerate(profile.steps))
    return Heat(costs, profile.total.seconds)


def _rows(plan: Plan) -> Iterable[list[list[int]]]:
    """The numbers of the steps, by what runs between two barriers; copies beside each other are one box."""
    row: list[list[int]] = []
    for number, step in enumerate(plan.steps):
        if step.barrier and row:
            yield row
            row = []
        if row and step.region is None and plan.steps[row[-1][-1]].region is None:
            row[-1].append(number)
        else:
            row.append([number])
    if row:
        yield row


def _flows(plan: Plan, box_of: dict[int, list[int]]) -> dict[tuple[int, int], list[str]]:
    """The values that go from box to box, by the first steps of both, as far as they are near."""
    found: dict[tuple[int, int], list[str]] = {}
    written: dict[Buffer, int] = {}
    for number, step in enumerate(plan.steps):
        for buffer, name in _reads(plan, step).items():
            start = written.get(buffer)
            if start is not None and buffer.place != "state" and number - start <= NEAR:
                found.setdefault((box_of[start][0], box_of[number][0]), []).append(name)
        written.update((buffer, number) for buffer in step.writes.values())
    return found


def _reads(plan: Plan, step: Step) -> dict[Buffer, str]:
    """What a step reads, with the bytes that it reads of it."""
    if step.region is None:
        return {
            buffer: f"{shortened(buffer.name, 24)} {quantity(buffer.nbytes, 'B')}" for buffer in step.reads.values()
        }
    read = bytes_read(plan.partition, step.region, plan.sizes)
    return {b: f"{shortened(b.name, 24)} {quantity(read[value], 'B')}" for value, b in step.reads.items()}


def _box(page: graphviz.Digraph, plan: Plan, box: list[int], heat: Heat | None) -> None:
    """One step, or the copies that stand beside each other."""
    first, steps = box[0], [plan.steps[number] for number in box]
    if steps[0].region is None:
        head = f"{first} copy" if len(box) == 1 else f"{first} to {box[-1]}: {len(box)} copies"
        lines = [f"→ {line}" for line in wrapped([b.name for s in steps for b in s.writes.values()], ", ", LINES)]
    else:
        head, lines = f"{first} {plan.kernel(steps[0])}", _lines(plan, first, steps[0])
    time = heat.line(first) if heat else ""
    look = {**_look(plan, steps[0]), **(heat.look(first) if heat else {})}
    tooltip = [f"{value!r}: {buffer.place} {buffer.name}" for s in steps for value, buffer in s.writes.items()]
    page.node(
        f"step{first}",
        label(head, time, *lines),
        tooltip=label(*[step.title for step in steps], *tooltip),
        **look,
        **{"class": "minigraph-layer"},
    )


def _lines(plan: Plan, number: int, step: Step) -> list[str]:
    """What a step computes, its work, what it reads from afar, and what it writes for others than the next steps."""
    work = plan.work(step)
    amounts = [quantity(work.flops, "FLOP")] if work.flops else []
    amounts.append(f"{quantity(work.bytes, 'B')}")
    near = {b for other in plan.steps[max(0, number - NEAR) : number] for b in other.writes.values()}
    far = [name for b, name in _reads(plan, step).items() if b.place == "state" or b not in near]
    out = [f"{b.place} {shortened(b.name, 28)}" for b in step.writes.values() if b.place != "arena"]
    return [
        *wrapped(begun(step.title, 110).split(" "), " ", LINES),
        ", ".join(amounts),
        *(f"reads {line}" for line in wrapped(far, ", ", LINES)),
        *(f"→ {line}" for line in wrapped(out, ", ", LINES)),
    ]


def _look(plan: Plan, step: Step) -> dict[str, str]:
    """The colours of the role that most of a step's work is for."""
    if step.region is None:
        return PLAIN
    found: dict[str, float] = {}
    for node, share in shares(step.region, plan.partition, plan.sizes).items():
        found[node.origin.role] = found.get(node.origin.role, 0.0) + share
    look = LOOKS[max(found, key=lambda role: found[role])]
    return {"fillcolor": look.fill, "color": look.line}


# the memory

WIDTH, HEIGHT = 900, 480  # points, of the chart without its margins
LEFT, TOP, BOTTOM, RIGHT = 70, 56, 40, 16
LETTER = 5.2  # points, of a letter in a rectangle


def arena_svg(plan: Plan) -> str:
    """The memory that values share, as a chart of offset against step, in SVG."""
    held = _in_arena(plan)
    steps, arena = max(1, len(plan.steps)), max(1, plan.arena)
    x = lambda step: LEFT + WIDTH * step / steps
    y = lambda offset: TOP + HEIGHT * (1 - offset / arena)
    live = [sum(b.nbytes for b in held if b.first <= n <= b.last and _is_own(b, n)) for n in range(len(plan.steps))]
    most = max(live, default=0)
    title = (
        f"{quantity(plan.arena, 'B')} of memory between the steps; at most {quantity(most, 'B')} of it hold values at "
        f"one time, and all values together are {quantity(sum(b.nbytes for b in held), 'B')}"
    )
    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    lines = [
        f'<svg width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="{FONT}" font-size="9">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="11">{escape(title)}</text>',
        f'<text x="{LEFT}" y="36" font-size="9" fill="#444444">across: steps; upwards: bytes; a rectangle is a value '
        "from the step that writes it to the last that reads it</text>",
        *_axes(steps, arena, x, y),
    ]
    for buffer, fill, line in _coloured(plan, held):
        left, right = x(buffer.first), x(buffer.last + 1)
        top, bottom = y(buffer.offset + buffer.nbytes), y(buffer.offset)
        text = (
            f"{buffer.name}: {quantity(buffer.nbytes, 'B')} at {buffer.offset}, steps {buffer.first} to {buffer.last}"
        )
        lines.append(
            f'<g><title>{escape(text)}</title><rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{max(bottom - top, 0.5):.1f}" fill="{fill}" stroke="{line}" stroke-width="0.6"/>'
        )
        letters = int((right - left - 6) / LETTER)
        if bottom - top >= 11 and letters >= 6:
            name = shortened(f"{buffer.name} {quantity(buffer.nbytes, 'B')}", letters)
            lines.append(f'<text x="{left + 3:.1f}" y="{(top + bottom) / 2 + 3:.1f}">{escape(name)}</text>')
        lines.append("</g>")
    return "\n".join([*lines, "</svg>\n"])


def _in_arena(plan: Plan) -> list[Buffer]:
    """Values and working memory, those first that are written first."""
    touched = (b for step in plan.steps for b in (*step.touched, *step.reads.values()))
    return list(dict.fromkeys(b for b in touched if b.place == "arena"))


def _is_own(buffer: Buffer, step: int) -> bool:
    """Whether its bytes are not those of a value that it takes over in this step."""
    return buffer.inside is None or step > buffer.first


def _coloured(plan: Plan, held: Sequence[Buffer]) -> Iterable[tuple[Buffer, str, str]]:
    """Each with its fill and line: those of the step that writes it, or grey for what a kernel works in."""
    values = {b: step for step in plan.steps for b in step.writes.values()}
    for buffer in held:
        look = _look(plan, values[buffer]) if buffer in values else {"fillcolor": "#E4E4E4", "color": "#8A8A8A"}
        yield buffer, look["fillcolor"], look["color"]


def _axes(steps: int, arena: int, x: Scale, y: Scale) -> Iterable[str]:
    every = next(n for k in range(9) for n in (10**k, 2 * 10**k, 5 * 10**k) if steps / n <= 26)
    for step in range(0, steps, every):
        where = (x(step) + x(step + 1)) / 2
        yield f'<text x="{where:.1f}" y="{y(0) + 14:.1f}" text-anchor="middle">{step}</text>'
    for part in range(5):
        offset = arena * part / 4
        yield (
            f'<line x1="{x(0)}" y1="{y(offset):.1f}" x2="{x(steps)}" y2="{y(offset):.1f}" stroke="#DDDDDD"/>'
            f'<text x="{LEFT - 6}" y="{y(offset) + 3:.1f}" text-anchor="end">{quantity(offset, "B")}</text>'
        )
