"""examples/batch_norm: verdicts come from the measurements and flip with the arms, every experiment runs, and the page
says what was measured."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigraph as mg

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
GALLERY = EXAMPLES / "batch_norm"


def _module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(f"batch_norm.{name}")
    finally:
        sys.path.remove(str(EXAMPLES))


experiment, gallery, data, learning = map(_module, ("experiment", "gallery", "data", "learning"))
EXPERIMENTS = _module("catalog").EXPERIMENTS
HOLDS, FAILS, UNDECIDED = experiment.HOLDS, experiment.FAILS, experiment.UNDECIDED
FLIPPED = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
CLAIMS = [
    pytest.param(e, claim, id=f"{e.name}-{i}") for e in EXPERIMENTS.values() for i, claim in enumerate(e.claims, 1)
]


def claim(**changes: Any) -> Any:
    given = {"says": "", "first": "a", "second": "b", "score": lambda m: m["x"], "margin": 2.0, "unit": "m", **changes}
    return experiment.Claim(**given)


def records(a: list[float], b: list[float]) -> dict[str, list[dict[str, float]]]:
    return {"a": [{"x": x} for x in a], "b": [{"x": x} for x in b]}


@pytest.mark.parametrize(
    ("changes", "a", "b", "word"),
    [
        ({}, [3, 4, 5], [1, 2, 3], HOLDS),
        ({}, [3, 4, 4.9], [1, 2, 3], UNDECIDED),  # one seed is short of the margin
        ({}, [3, 4, 0], [1, 2, 3], UNDECIDED),  # the seeds disagree
        ({}, [1, 2, 3], [3, 4, 5], FAILS),
        ({}, [3, 3, 3], [3, 3, 3], UNDECIDED),
        ({"less": True}, [3, 4, 5], [1, 2, 3], FAILS),
        ({"times": True}, [2, 4, 6], [1, 2, 3], HOLDS),
        ({"times": True}, [2, 4, 5], [1, 2, 3], UNDECIDED),
        ({"times": True, "less": True}, [2, 4, 6], [1, 2, 3], FAILS),
    ],
)
def test_the_rule(changes: dict[str, Any], a: list[float], b: list[float], word: str) -> None:
    given, measured = claim(**changes), records(a, b)
    assert experiment.judge(given, measured).word == word
    assert experiment.judge(given, experiment.swapped(given, measured)).word == FLIPPED[word]


def test_a_verdict_needs_three_seeds_and_numbers() -> None:
    with pytest.raises(mg.GraphError, match="3 seeds, not 2 and 2"):
        experiment.judge(claim(), records([3, 4], [1, 2]))
    with pytest.raises(mg.GraphError, match="finite"):
        experiment.judge(claim(), records([3, 4, np.nan], [1, 2, 3]))


def recorded(name: str) -> dict[str, Any]:
    found = gallery.kept(GALLERY, name)
    assert found is not None
    return found


@pytest.mark.parametrize(("of", "given"), CLAIMS)
def test_what_was_measured_gives_the_other_verdict_with_the_arms_swapped(of: Any, given: Any) -> None:
    measured = recorded(of.name)["records"]
    word = experiment.judge(given, measured).word
    swapped = experiment.swapped(given, measured)
    assert experiment.judge(given, swapped).word == FLIPPED[word]
    leads = given.leads(measured)  # which flip as well where the verdict is that nothing is decided
    np.testing.assert_allclose(given.leads(swapped), 1 / leads if given.times else -leads, rtol=1e-12)
    assert given.first != given.second


def test_the_page_says_what_was_measured() -> None:
    assert (GALLERY / "README.md").read_text(encoding="utf-8") == gallery.page(GALLERY, EXPERIMENTS.values())
    for figure in re.findall(r"!\[[^]]*\]\(([^)]*)\)", gallery.page(GALLERY, EXPERIMENTS.values())):
        assert (GALLERY / figure).is_file()


def test_the_page_leaves_out_what_another_version_measured(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name, arms in (("faster", dict(list(recorded("faster")["records"].items())[:1])), ("identity", None)):
        old = recorded(name) if arms is None else {**recorded(name), "records": arms}
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(old), encoding="utf-8")
    page = gallery.page(tmp_path, EXPERIMENTS.values())
    assert EXPERIMENTS["identity"].title in page
    assert EXPERIMENTS["faster"].title not in page


@pytest.fixture(scope="module")
def at() -> Any:
    digits = data.digits()
    few = data.Data("digits", data.part(digits.train, slice(256)), data.part(digits.test, slice(128)))
    return experiment.At("tiny", few)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_and_is_drawn(name: str, at: Any, tmp_path: Path) -> None:
    each = EXPERIMENTS[name]
    once = each.run([0], at)
    measured = {arm: [found[0]] * experiment.LEAST_SEEDS for arm, found in once.items()}
    gallery.keep(tmp_path, each, at, measured, 1.0)
    assert (tmp_path / "results" / f"{name}.png").stat().st_size > 10_000
    back = gallery.kept(tmp_path, name)
    assert {verdict.word for verdict in each.verdicts(back["records"])} <= {HOLDS, FAILS, UNDECIDED}
    page = gallery.page(tmp_path, [each])
    assert all(given.says in page for given in each.claims)


def test_seeds_name_the_batches() -> None:
    images = {"image": np.arange(10), "label": np.arange(10)}
    first, again, other = (
        [batch["label"].tolist() for batch in learning.batches(images, 4, 5, seed)] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert sorted(first[0] + first[1]) == sorted(set(first[0] + first[1]))  # an epoch has no image twice
    assert [len(batch) for batch in first] == [4] * 5


def test_a_diverged_network_has_the_accuracy_of_chance() -> None:
    net = mg.Builder("lost")
    x, label = net.input("x", ("N", 10)), net.input("label", ("N",), "int64")
    logits = x * float("inf")
    model = net.build(loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))
    check = learning.checker(model, model.init())
    assert learning.accuracy(check, {"x": np.ones((4, 10), "f4"), "label": np.zeros(4, np.int64)}) == learning.CHANCE


def test_results_are_small() -> None:
    for path in (GALLERY / "results").glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
        assert path.stat().st_size < 300_000, path
