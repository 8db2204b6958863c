"""A registered op is taken up by every test over the registry, with no file edited, and a wrong one is found."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import minigraph as mg
from minigraph.core import proof
from minigraph.core.op import Sample

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
SEVERAL = '''
"""Ops with several outputs: one made of others, without a rule of its own, and one with a rule and no expansion."""

import numpy as np

import minigraph as mg
from minigraph import Example, Op
from minigraph.core.op import float_dtype, positive, real


def multiply(a, b, c, d):
    return a * c - b * d, a * d + b * c


def product_types(a, b, c, d, /):
    """(a + bi)(c + di): its real and its imaginary part."""
    float_dtype(a, b, c, d)
    return a, a


several_product = Op(
    "several_product", product_types, multiply, expand=multiply, outputs=("real", "imag"),
    examples=(Example(*[real(2, 3)] * 4), Example(*[real()] * 4), Example(*[real(0, 2)] * 4)),
)


def parts_types(x, y, /, *, power=1):
    """The sum and the quotient of x and y times `power`, and which of both is larger."""
    float_dtype(x, y)
    return x, x, mg.Type(x.shape, "bool")


def parts_gradient(gs, xs, ys, power):
    """None is the gradient of an output that nobody reads."""
    dx, dy = (gs[0], gs[0] * power) if gs[0] is not None else (None, None)
    if gs[1] is not None:
        scaled = gs[1] / (xs[1] * power)
        slope = -(scaled * xs[0] / xs[1])
        dx, dy = (scaled, slope) if dx is None else (dx + scaled, dy + slope)
    return dx, dy


several_parts = Op(
    "several_parts", parts_types, lambda x, y, power: (x + y * power, x / (y * power), np.less(x, y)), parts_gradient,
    outputs=("sum", "quotient", "less"),
    examples=(
        Example(real(2, 3), positive(2, 3)), Example(real(3), positive(3), power=3), Example(real(0), positive(0)),
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


NAMES = ("several_product", "several_parts")
WRONG_SEVERAL = {
    "sign": ("expand=multiply", "expand=lambda a, b, c, d: (a * c + b * d, a * d + b * c)", "product", "expansion"),
    "order": ("expand=multiply", "expand=lambda *x: multiply(*x)[::-1]", "product", "expansion"),
    "shape": ("np.less(x, y))", "np.less(x, y)[..., None])", "parts", "reference"),
    "rule": ("(gs[0], gs[0] * power)", "(gs[0], gs[0])", "parts", "gradient"),
}


def registry_tests(folder, source, name="cyclic_shift"):
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
            name,
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


def test_ops_with_several_outputs_pass_everything(tmp_path):
    results, status, output = registry_tests(tmp_path, SEVERAL, "several_")
    assert status == 0, output
    assert set(results.values()) == {"PASSED"}
    tests = {name: {t.partition("[")[0] for t in results if f"[{name}-" in t or f"-{name}-" in t} for name in NAMES}
    for word in ("reference", "canonical", "symbols", "gradient_is_proved", "gradient_agrees"):
        assert all(any(word in test for test in tests[name]) for name in NAMES), f"{word}: {tests}"
    assert any("expansion" in test for test in tests["several_product"])
    assert not any("expansion" in test for test in tests["several_parts"])  # it has none


def test_wrong_ops_with_several_outputs_are_found(tmp_path):
    plugin = ""
    for what, (right, wrong, _, _) in WRONG_SEVERAL.items():
        assert SEVERAL.count(right) == 1
        plugin += SEVERAL.replace(right, wrong).replace("several_", f"several_{what}_")
    results, status, output = registry_tests(tmp_path, plugin, "several_")
    assert status == 1, output
    failed = {name for name, result in results.items() if result == "FAILED"}
    for what, (_, _, op, test) in WRONG_SEVERAL.items():
        blamed = {name for name in failed if f"several_{what}_" in name}
        assert any(test in name for name in blamed), f"{what}: only {blamed}"
        assert all(f"several_{what}_{op}" in name for name in blamed)  # nothing else is blamed


def test_one_output_alone_can_be_differentiated():
    """The rule gets None for the other, and a gradient is never asked of what is no float."""
    registered = dict(mg.OPS)
    space: dict[str, Any] = {}
    try:
        exec(SEVERAL, space)
        for name, attrs in (("several_product", {}), ("several_parts", {"power": 2})):
            op = space[name]
            for number in range(2):
                net = mg.Builder()
                xs = [net.input(f"x{i}", (3,), "float64") for i in range(op.tensors)]
                y = op(*xs, **attrs)[number]
                graph = net.build(y=y)
                proof.prove_gradient(graph, {x.value.name: Sample((3,), low=0.5) for x in xs})
                assert str(mg.parse(str(graph))) == str(graph)
    finally:
        for name in mg.OPS.keys() - registered.keys():
            del mg.OPS[name]
