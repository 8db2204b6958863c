"""10. Inference: a batch norm that normalizes by fixed statistics is one scale and one shift for each channel, which go
into the weights of the convolution before it. The network then has no batch norm, and answers the same.

How near "the same" is, is held against what one more step of training changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minigraph as mg

from .experiment import At, Claim, Experiment, Measurement, Records
from .figures import dots, panels
from .learning import batches, cnn, normalized, train, trainer

FOLDED, PLAIN, STEP = "folded", "not folded", "one more step"
BACKENDS = ("auto", "numpy")
BATCH, ROUNDS = 64, 15


def measure(seed: int, at: At) -> Mapping[str, Measurement]:
    model = cnn(at.data, normalized, channels=(16, 32))
    state = model.init(seed)
    program = trainer(model, state, mg.optim.SGD(0.1))
    train(program, at.data.train, BATCH, at.of(5, 100, 500), seed)
    graph = mg.inference(model, outputs=["logits"])
    images = at.data.test["image"][:BATCH]
    found: dict[str, dict[str, Any]] = {FOLDED: {}, PLAIN: {}, STEP: {}}
    for asked in BACKENDS:
        plain, folded = mg.compile(graph, state, asked, pipeline=()), mg.compile(graph, state, asked)
        answer = plain(image=images)["logits"]
        found[FOLDED][f"digits {asked}"] = agreement(folded(image=images)["logits"], answer)
        for arm, each, seconds in zip((PLAIN, FOLDED), (plain, folded), least_seconds([plain, folded], images)):
            found[arm] |= {f"microseconds {asked}": 1e6 * seconds / BATCH, asked: each.backend, "nodes": nodes(each)}
    for batch in batches(at.data.train, BATCH, 1, seed + 1):
        program(**batch)
    for asked in BACKENDS:
        later = mg.compile(graph, state, asked, pipeline=())
        found[STEP][f"digits {asked}"] = agreement(later(image=images)["logits"], answer)
    return found


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Decimal digits: of the largest difference, as a share of the largest number; at most 8, where there is none."""
    return float(-np.log10(max(1e-8, np.abs(ours - theirs).max() / np.abs(theirs).max())))


def least_seconds(programs: list[mg.Program], images: np.ndarray) -> list[float]:
    """The least time of a call of each, which take turns, so that what else the machine does meets all of them."""
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(ROUNDS):
        for program, seen in zip(programs, times):
            begin = time.perf_counter()
            program(image=images)
            seen.append(time.perf_counter() - begin)
    return [min(seen[1:]) for seen in times]


def nodes(program: mg.Program) -> list[str]:
    """The ops from the image to the answer, in order. What is made of weights alone is computed once, beforehand."""
    live, found = {value.name for value in program.graph.inputs}, []
    for node in program.graph.nodes:
        if any(value.name in live for value in node.inputs):
            live |= {value.name for value in node.outputs}
            found.append(node.op.name)
    return found


def draw(records: Records) -> Figure:
    figure, (left, middle, right) = panels("A batch norm folded into the weights: same answers, fewer ops", 3)
    names = [records[FOLDED][0][asked] for asked in BACKENDS]
    changes = {FOLDED: "folding\nchanges", STEP: "one more\nstep changes"}
    groups = {
        f"{changes[arm]}\n({name})": [m[f"digits {asked}"] for m in records[arm]]
        for asked, name in zip(BACKENDS, names)
        for arm in (FOLDED, STEP)
    }
    dots(left, groups)
    left.tick_params(axis="x", labelsize=7.5)
    left.set(ylabel="digits of the answers that stay the same (decimal)", ylim=(0, 8.2))
    times = {
        f"{arm}\n({n})": [m[f"microseconds {asked}"] for m in records[arm]]
        for asked, n in zip(BACKENDS, names)
        for arm in (FOLDED, PLAIN)
    }
    dots(middle, times)
    middle.set(yscale="log", ylabel="time for an image, in batches of 64 (µs)")
    right.set(xlim=(0, 2), ylim=(-15, 1), title="from the image (above) to the answer")
    right.axis("off")
    for place, arm in ((0.5, PLAIN), (1.5, FOLDED)):
        right.text(place, 0.2, arm, ha="center", fontweight="bold")
        for row, op in enumerate(records[arm][0]["nodes"]):
            norm = "batch_norm" in op
            box = {"boxstyle": "round", "facecolor": "#F5D0B5" if norm else "white", "edgecolor": "black"}
            right.text(place, -1 - 1.1 * row, op, ha="center", va="center", fontsize=8, bbox=box)
    return figure


def faster_on(asked: str, name: str) -> Claim:
    return Claim(
        f"Folding makes the network at least 5 % faster on {name}.",
        FOLDED,
        PLAIN,
        lambda m: float(m[f"microseconds {asked}"]),
        margin=1.05,
        unit="µs for an image",
        less=True,
        times=True,
    )


EXPERIMENT = Experiment(
    name="folding",
    title="Inference: folded",
    source="Ioffe and Szegedy 2015, section 3.1: with fixed statistics the normalization is a linear transform",
    claims=(
        Claim(
            "The folded network gives the same answers: they keep two digits more than over one step of training.",
            FOLDED,
            STEP,
            lambda m: min(float(m[f"digits {asked}"]) for asked in BACKENDS),
            margin=2.0,
            unit="digits",
        ),
        faster_on("auto", "the fastest backend there is"),
        faster_on("numpy", "NumPy"),
    ),
    measure=measure,
    draw=draw,
    setting=lambda at: (
        f"{at.data.name}; two convolutions of 16 and 32 channels with batch norm, ReLU and pooling; the least of"
        f" {ROUNDS - 1} calls with {BATCH} images, the two networks by turns."
    ),
)
