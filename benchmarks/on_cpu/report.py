"""What a sitting found, as numbers, as a table and as a picture: all is made of the samples that were recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.on_cpu.contenders import OURS

Row = dict[str, Any]
CLOSE = {True: 1e-4, False: 1e-3}  # of a first loss, and of logits, relative: further apart is another network
LATER = 0.05  # of the losses after it, by which weights have moved, and roundings grown
MEMORY = {True: ("torch", 1.0), False: ("onnxruntime", 1.5)}  # in training and in answers: at most so many times theirs
FARTHEST = 25.0  # times as long as minigraph: the edge of the picture
LIMITS = {"import": 0.15, "cold": 5.0, "cached": 0.5}  # seconds


def kept(samples: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without those that failed or are discarded."""
    return [one for one in samples if "error" not in one and not one["discarded"]]


def summary(samples: Sequence[Mapping[str, Any]]) -> Row | None:
    """One contender on one workload: milliseconds and MB. None where no sample is kept.

    first_cold: seconds of the first call and all before it but the import, in the first round. first_cached: the least
    of later ones, which find what was compiled.
    """
    good = kept(samples)
    if not good:
        return None
    cold = [one["first_s"] for one in samples if "error" not in one and one["round"] == 0]
    cached = [one["first_s"] for one in samples if "error" not in one and one["round"] > 0]
    peaks = [one["peak_MB"] for one in good if one["peak_MB"] is not None]
    return {
        "median_ms": statistics.median(one["median_ms"] for one in good),
        "least_ms": min(one["least_ms"] for one in good),
        "runs": len(good),
        "discarded": sum(one.get("discarded", False) for one in samples),
        "first_cold_s": cold[0] if cold else None,
        "first_cached_s": min(cached, default=None),
        "import_s": min(one["import_s"] for one in good),
        "peak_MB": max(peaks, default=None),
        "others": max((one["others"] or 0.0) for one in good),
        "apart": agreement(one["apart"] for one in good),
    }


def agreement(found: Iterable[Sequence[float]]) -> list[float]:
    """The largest distance of all runs, result by result."""
    return [max(one) for one in zip(*found)]


def agrees(apart: Sequence[float], training: bool) -> bool:
    return apart[0] <= CLOSE[training] and all(one <= LATER for one in apart)


def rows(workloads: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each workload that was run.

    best: the one of the others with the least median. ratio: its median by that of minigraph, and ratio_of_least by
    their shortest steps, each of whoever has the shortest. memory: the peak of minigraph by that of whom it is held
    against.
    """
    found = []
    for workload in workloads:
        mine = [one for one in samples if one["workload"] == workload["name"]]
        if not mine:
            continue
        names = list(dict.fromkeys(one["contender"] for one in mine))
        each = {name: summary([one for one in mine if one["contender"] == name]) for name in names}
        measured = {name: one for name, one in each.items() if one}
        errors = {one["contender"]: one["error"] for one in mine if "error" in one}
        found.append({**workload, "contenders": measured, "errors": errors, "lost": _lost(each, errors)})
        found[-1].update(_compared(measured, workload))
    return found


def _lost(each: Mapping[str, Row | None], errors: Mapping[str, str]) -> list[str]:
    """Those whose runs were all discarded."""
    return [name for name, one in each.items() if one is None and name not in errors]


def _compared(each: Mapping[str, Row], workload: Mapping[str, Any]) -> Row:
    ours, others = each.get(OURS), {name: one for name, one in each.items() if name != OURS}
    strange = [name for name, one in others.items() if not agrees(one["apart"], workload["training"])]
    found: Row = {"best": None, "ratio": None, "ratio_of_least": None, "memory": None, "holds": None, "differ": strange}
    right = {name: one for name, one in others.items() if name not in strange}
    if not (ours and right):
        return found
    found["best"] = min(right, key=lambda name: right[name]["median_ms"])
    found["ratio"] = right[found["best"]]["median_ms"] / ours["median_ms"]
    found["ratio_of_least"] = min(one["least_ms"] for one in right.values()) / ours["least_ms"]
    if workload["least"] is not None:
        found["holds"] = found["ratio"] >= workload["least"]
    against, times = MEMORY[workload["training"]]
    if against in right and ours["peak_MB"] and right[against]["peak_MB"]:
        found["memory"] = ours["peak_MB"] / right[against]["peak_MB"]
        found["memory_holds"] = found["memory"] <= times
    return found


def markdown(sitting: Mapping[str, Any]) -> str:
    """The tables of a sitting."""
    found = rows(sitting["workloads"], sitting["samples"])
    parts = [heading(sitting), ratios(found), memory(found), also(sitting.get("also", {})), everybody(found)]
    return "\n\n".join(part for part in [*parts, remarks(sitting, found)] if part) + "\n"


def heading(sitting: Mapping[str, Any]) -> str:
    settings = sitting["settings"]
    return (
        f"{sitting['date']}, {sitting['processor']}, {settings['threads']} of {sitting['cores']} cores, load "
        f"{sitting['load']:.2f} before; {sitting['versions']}.\nRounds: {settings['rounds']}. Runs in which others "
        f"used more than {settings['others']} cores are left out. Milliseconds: the median of the rounds' medians, and "
        f"in brackets the shortest step."
    )


def ratios(found: Sequence[Row]) -> str:
    head = ["workload", "minigraph", "best of the others", "", "ratio", "of the shortest", "at least", "aim", "holds"]
    lines = []
    for row in found:
        ours, best = (row["contenders"].get(name) for name in (OURS, row["best"]))
        cells = [row["name"], times(ours), row["best"] or "", times(best), number(row["ratio"])]
        cells += [number(row[name]) for name in ("ratio_of_least", "least", "aim")]
        lines.append([*cells, {None: "", True: "yes", False: "NO"}[row["holds"]]])
    return table(head, lines)


def sittings(several: Sequence[Mapping[str, Any]]) -> str:
    """One table of several sittings: what each measured, one behind the other."""
    head = ["workload", "minigraph", "best of the others", "", "times as fast", "by the shortest", "aimed at"]
    each = [rows(one["workloads"], one["samples"]) for one in several]
    lines = []
    for same in zip(*each, strict=True):
        who = list(dict.fromkeys(row["best"] for row in same))
        columns = [
            [times(row["contenders"][OURS]) for row in same],
            [times(row["contenders"][row["best"]]) for row in same],
            who,
            [number(row["ratio"]) for row in same],
            [number(row["ratio_of_least"]) for row in same],
        ]
        lines.append([same[0]["name"], *("; ".join(column) for column in columns), number(same[0]["least"])])
    return table(head, lines)


def memory(found: Sequence[Row]) -> str:
    """Peaks, of those workloads where they can be compared."""
    head = ["peak memory, MB", "minigraph", "held against", "", "times", "at most", "holds"]
    lines = []
    for row in found:
        if row["memory"] is not None:
            against, most = MEMORY[row["training"]]
            peaks = [f"{row['contenders'][name]['peak_MB']:.0f}" for name in (OURS, against)]
            holds = "yes" if row["memory_holds"] else "NO"
            lines.append([row["name"], peaks[0], against, peaks[1], number(row["memory"]), number(most), holds])
    return table(head, lines) if lines else ""


def also(found: Mapping[str, Any]) -> str:
    """Compiling and importing, beside what they may take."""
    compiling, imports = found.get("compiling") or {}, found.get("import_s") or []
    seconds = {f"compile ResNet-20's training step, {kind}": (compiling.get(kind), kind) for kind in ("cold", "cached")}
    seconds["import minigraph"] = (statistics.median(imports) if imports else None, "import")
    lines = [
        [name, f"{taken:.3f}", f"{LIMITS[kind]:.2f}", "yes" if taken <= LIMITS[kind] else "NO"]
        for name, (taken, kind) in seconds.items()
        if taken is not None
    ]
    return table(["seconds", "measured", "at most", "holds"], lines) if lines else ""


def everybody(found: Sequence[Row]) -> str:
    head = ["workload", "who", "median", "shortest", "runs", "first call, s", "cached, s", "import, s", "MB", "apart"]
    lines = []
    for row in found:
        for name, one in sorted(row["contenders"].items(), key=lambda item: item[1]["median_ms"]):
            runs = f"{one['runs']}" + (f" (and {one['discarded']} discarded)" if one["discarded"] else "")
            cells = [row["name"], name, number(one["median_ms"]), number(one["least_ms"]), runs]
            cells += [number(one[column]) for column in ("first_cold_s", "first_cached_s", "import_s")]
            lines.append([*cells, f"{one['peak_MB'] or 0:.0f}", f"{one['apart'][0]:.0e}"])
    return table(head, lines)


def remarks(sitting: Mapping[str, Any], found: Sequence[Row]) -> str:
    """What is missing, has failed, was discarded, or computes something else."""
    lines = list(sitting["missing"])
    error = (sitting.get("also", {}).get("compiling") or {}).get("error")
    lines += [f"compile ResNet-20's training step: {error}"] if error else []
    for row in found:
        lines += [f"{row['name']}, {name}: {error}" for name, error in row["errors"].items()]
        lines += [f"{row['name']}, {name}: all runs were discarded, others used the cores" for name in row["lost"]]
        for name in row["differ"]:
            off = ", ".join(f"{one:.0e}" for one in row["contenders"][name]["apart"])
            lines.append(f"{row['name']}, {name}: does not compute what minigraph does, and does not count ({off})")
    return "\n".join(f"- {line}" for line in lines)


def wrong(found: Sequence[Row]) -> bool:
    """Whether somebody computes something else, or minigraph fails."""
    return any(row["differ"] or OURS in row["errors"] for row in found)


def times(one: Mapping[str, Any] | None) -> str:
    return f"{number(one['median_ms'])} ({number(one['least_ms'])})" if one else ""


def number(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return ""
    return (
        f"{value:.3f}"
        if value < 1
        else f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:.0f}"
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown: the first column to the left, the others to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def picture(sitting: Mapping[str, Any], file: Path) -> None:
    """How long each takes beside minigraph, which is 1: a line for each workload, a dot for each contender that is not
    too far away.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "minigraph"
    from matplotlib import pyplot

    found = [row for row in rows(sitting["workloads"], sitting["samples"]) if row["ratio"] is not None]
    packages = list(dict.fromkeys(name.split(",")[0].split(" ")[0] for row in found for name in row["contenders"]))
    colours = dict(zip(packages, pyplot.get_cmap("tab10").colors))  # type: ignore[attr-defined]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.4 * len(found)), layout="constrained")
    for y, row in enumerate(reversed(found)):
        ours = row["contenders"][OURS]["median_ms"]
        for name, one in row["contenders"].items():
            axes.plot(one["median_ms"] / ours, y, "o", color=colours[name.split(",")[0].split(" ")[0]], alpha=0.7)
        if row["least"]:
            axes.plot([row["least"]] * 2, [y - 0.35, y + 0.35], "-", color="black", linewidth=1)
    axes.set_yticks(range(len(found)), [row["name"] for row in reversed(found)])
    axes.set_xscale("log")
    axes.set_xlim(right=FARTHEST)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.axvline(1, color=colours.get(OURS, "black"), linewidth=0.8)
    axes.set_xlabel("times as long as minigraph; black: at least")
    marks = [axes.plot([], [], "o", color=colour)[0] for colour in colours.values()]
    figure.legend(marks, packages, loc="outside upper right", ncols=len(packages), fontsize="small")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
