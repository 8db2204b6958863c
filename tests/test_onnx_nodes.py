"""ONNX's own tests of its operators: those that passed still pass, and those of our operators pass but for reasons."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from minigraph.onnx.call import READERS
from onnx_node_tests import COUNTS, HOW, KINDS, NodeTest, cases_of, counts, failures, outcomes

README = " ".join((Path(__file__).parent.parent / "README.md").read_text().split())

# A test all of whose operators have readers passes, except these (patterns over names), which fail or are skipped.
OLD = "it is written in opset 6, from which opset 7 differs in this operator"
EXCEPTIONS = {
    "test_cast*FLOAT4E2M1*": "minigraph has no floats of 4 bits",
    "test_cast*FLOAT8*": "minigraph has no floats of 8 bits",
    "test_cast*INT2*": "minigraph has no integers of 2 bits",
    "test_cast*INT4*": "minigraph has no integers of 4 bits",
    "test_equal_string*": "minigraph has no texts",
    "test_identity_opt": "minigraph has tensors, and no values that may be missing",
    "test_identity_sequence": "minigraph has tensors, and no sequences of them",
    "test_resize_*_cubic*": "minigraph interpolates linearly, or takes the nearest entry",
    "test_resize_*_antialias": "minigraph smooths nothing before it makes an image smaller",
    "test_resize_*_half_pixel_symmetric": "minigraph does not have these coordinates",
    "test_resize_tf_crop_and_resize*": "minigraph does not have these coordinates",
    "test_resize_downsample_scales_linear_align_corners": "it takes the last entry for one at 1.4 of 2, where the scale"
    " would give 2.4 of them; here the last of 2 entries is the last one, as it is in ONNX Runtime",
    "test_training_dropout": "its random numbers are NumPy's",
    "test_training_dropout_mask": "its random numbers are NumPy's",
    "test_training_dropout_default": "its random numbers are NumPy's",
    "test_training_dropout_default_mask": "its random numbers are NumPy's",
    "test_AvgPool?d*": OLD,
    "test_BatchNorm?d_*": OLD,
    "test_GLU*": OLD,
    "test_Linear": OLD,
    "test_PReLU_?d*": OLD,
    "test_PoissonNLLLLoss_no_reduce": OLD,
    "test_Softsign": OLD,
    "test_operator_add*": OLD,
    "test_operator_basic": OLD,
    "test_operator_mm": OLD,
    "test_operator_non_float_params": OLD,
    "test_operator_params": OLD,
    "test_operator_pow": OLD,
}


def is_ours(test: NodeTest) -> bool:
    """Whether it has to pass: its operators have readers, and no reason says why not."""
    plain = not test.expanded and set(test.operators) <= READERS.keys()
    return plain and not any(excepted(test, pattern) for pattern in EXCEPTIONS)


def test_what_passed_passes_and_what_has_readers_does():
    """In one test, since each process that takes up a part of it would run all of ONNX's tests again."""
    found = {name: each for kind in KINDS for name, each in outcomes(kind).items()}
    wrong = {name: result for name, (test, result) in found.items() if is_ours(test) and result.verdict != "passed"}
    assert not wrong

    for pattern in EXCEPTIONS:  # what passes needs no reason not to
        verdicts = {result.verdict for name, (test, result) in found.items() if excepted(test, pattern)}
        assert verdicts, f"no test is called {pattern}"
        assert "passed" not in verdicts, pattern

    assert COUNTS.read_text() == counts(), HOW
    passed = [test.expanded for test, result in found.values() if result.verdict == "passed"]
    sentence = f"Of ONNX's own tests {passed.count(False)} pass, and {passed.count(True)} more"
    assert sentence in README


def test_the_readme_names_the_operators():
    assert f"`load` reads {len(READERS)} operators" in README
    assert f": {', '.join(sorted(READERS))}." in README


def excepted(test: NodeTest, pattern: str) -> bool:
    return not test.expanded and fnmatchcase(test.name, pattern)


@pytest.mark.compiler
def test_one_of_each_operator_passes_in_c():
    ours = [test for test in cases_of("node") if is_ours(test)]
    check_in_c(list({test.operator: test for test in reversed(ours)}.values()))


@pytest.mark.compiler
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_pass_pass_in_c(kind):
    check_in_c([test for test, result in outcomes(kind).values() if result.verdict == "passed"])


TOGETHER = 25  # tests in one program


def check_in_c(tests: list[NodeTest]) -> None:
    wrong = {}
    for start in range(0, len(tests), TOGETHER):
        wrong.update(failures(tests[start : start + TOGETHER], "c"))
    assert not wrong
