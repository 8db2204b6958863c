"""A registered op is taken up by every test over the registry, with no file edited, and a wrong one is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OP = '''
"""A user's module: an op with attributes, an expansion and a gradient."""

import numpy as np

import minigraph as mg
from minigraph import Example, Op, Type
from minigraph.core.errors import expect
from minigraph.core.op import axis_of, integers, real


def types(x: Type, /, shift, axis=-1):
    """x with its entries moved by `shift` places along `axis`; what leaves at one end enters at the other."""
    expect(isinstance(x.shape[axis], int), "the axis that is shifted needs a known size, got {}", x)
    return x


def canonical(x, shift, axis):
    axis = axis_of(axis, x.rank)
    return {"shift": shift % max(1, x.shape[axis]) if isinstance(x.shape[axis], int) else shift, "axis": axis}


def expand(x, shift, axis):
    def part(start, stop):
        one = lambda given: [given if i == axis else None for i in range(x.rank)]
        return mg.slice(x, one(start), one(stop))

    cut = x.shape[axis] - shift
    return mg.concat([part(cut, None), part(0, cut)], axis=axis)


def gradient(gs, xs, ys, shift, axis):
    return (cyclic_shift(gs[0], shift=-shift, axis=axis),)


cyclic_shift = Op(
    "cyclic_shift", types, lambda x, shift, axis: np.roll(x, shift, axis), gradient, expand, canonical=canonical,
    examples=(
        Example(real(2, 5), shift=2), Example(real(4, 3, 2), shift=-1, axis=1), Example(real(3), shift=7),
        Example(real(0, 3), shift=1), Example(integers(5, below=9), shift=1),
    ),
)
'''
# what is broken: the text, what takes its place, and a word of the test that must find it
WRONG = {
    "gradient": ("shift=-shift", "shift=shift", "gradient"),
    "expansion": ("part(cut, None), part(0, cut)", "part(0, cut), part(cut, None)", "expansion"),
    "reference": ("np.roll(x, shift, axis)", "np.roll(x, shift, axis)[:1]", "reference"),
    "canonical": ('{"shift": shift', '{"shift": 1 + shift', "canonical"),
}


def registry_tests(folder, source):
    """Run the tests of the registry with a plugin of this text: {test: PASSED or FAILED}, exit status, output."""
    (folder / "thatplugin.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "thatplugin",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--tb=line",
            "-v",
            "tests/test_registry.py",
            "-k",
            "cyclic_shift",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.findall(r"^\S+::(\S+)\s+(PASSED|FAILED|ERROR|SKIPPED)", ended.stdout, re.MULTILINE)
    return dict(found), ended.returncode, ended.stdout + ended.stderr


def test_a_right_op_passes_everything(tmp_path):
    results, status, output = registry_tests(tmp_path, OP)
    assert status == 0, output
    assert set(results.values()) == {"PASSED"}
    tests = {name.partition("[")[0] for name in results}
    for word in ("reference", "canonical", "symbols", "expansion", "gradient_is_proved", "gradient_agrees"):
        assert any(word in name for name in tests), f"no test of {word} ran among {tests}"
    for number in range(5):  # every example
        assert sum(f"cyclic_shift-{number}" in name for name in results) >= len(tests)


def test_wrong_ops_are_found(tmp_path):
    plugin = ""
    for what, (right, wrong, _) in WRONG.items():
        assert OP.count(right) == 1
        plugin += OP.replace(right, wrong).replace("cyclic_shift", f"cyclic_shift_{what}")
    results, status, output = registry_tests(tmp_path, plugin)
    assert status == 1, output
    failed = [name for name, result in results.items() if result == "FAILED"]
    for what, (_, _, test) in WRONG.items():
        blamed = [name for name in failed if f"[cyclic_shift_{what}-" in name]
        assert any(test in name for name in blamed), f"{what}: only {blamed}"
    assert all("gradient" in name for name in failed if "cyclic_shift_gradient" in name)  # nothing else is blamed
