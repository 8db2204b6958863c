"""Values in the middle of what pads them."""

from __future__ import annotations

from typing import Any

import null_backend
import numpy as np
import pytest

import minigraph as mg
from minigraph import layers
from minigraph.backends import numpy as references
from minigraph.backends.c.executable import Executable
from minigraph.backends.c.tuned import claim, laid_out
from minigraph.backends.lower import lower
from minigraph.backends.plan import Plan, plan
from minigraph.core import dim
from minigraph.core.ir import Graph

WINOGRAD = 4e-5  # times the largest number: twice what F(4x4, 3x3) errs
RNG = np.random.default_rng(3)


def planned(graph: Graph, n: int = 5) -> Plan:
    return plan(graph, claim, {"N": n} if graph.symbols else {})


def copied(found: Plan) -> list[str]:
    """The names of the padding that is a step of its own."""
    calls = [step.region.call for step in found.steps if step.region is not None and step.region.call is not None]
    return [node.name for node in calls if node.op.name == "pad"]


def framed(found: Plan) -> list[str]:
    """What makes the values that have frames."""
    return [found.graph.producer[value].op.name for value in found.partition.memory.frames]


def holds(net: mg.Builder, **outputs: mg.Tensor) -> Plan:
    """The plan, after what it says and what C computes was held to the references."""
    graph = laid_out(lower(net.build(outputs)))
    for n in (1, 2, 5) if graph.symbols else (1,):
        sizes = {"N": n} if graph.symbols else {}
        given = [*graph.inputs, *(variable.value for variable in graph.state)]
        arrays = {v.name: RNG.normal(size=dim.bind(v.type.shape, sizes)).astype("float32") for v in given}
        wanted, new, _ = references.Executable(graph).run(sizes, arrays)
        for executable in (null_backend.Executable(graph, claim), Executable(graph)):
            found, moved = executable.run(sizes, arrays)
            for name, array in {**wanted, **new}.items():
                room = WINOGRAD * float(np.abs(array).max(initial=0))
                where = f"{name} of a batch of {n}"
                np.testing.assert_allclose({**found, **moved}[name], array, rtol=0, atol=room, err_msg=where)
    return planned(graph)


def begun(*shape: Any) -> tuple[mg.Builder, mg.Tensor]:
    net = mg.Builder("net")
    return net, net.input("x", ("N", *shape))


def weight(net: mg.Builder, name: str, *shape: int) -> mg.Tensor:
    return net.parameter(name, shape, mg.init.he_normal(shape))


@pytest.mark.compiler
@pytest.mark.parametrize("channels", [3, 16, 40])
def test_what_is_padded_is_written_into_its_frame(channels):
    net, x = begun(channels, 9, 7)
    y = mg.relu(mg.conv(x, weight(net, "v", 24, channels, 1, 1)) + weight(net, "b", 24, 1, 1))
    z = mg.conv(y, weight(net, "w", 8, 24, 3, 3), padding=1)
    found = holds(net, z=z)
    assert framed(found) == ["relu"]
    assert not copied(found)
    ((relu, node),) = found.partition.memory.frames.items()
    step = next(step for step in found.steps if relu in step.writes)
    assert step.writes[relu] is step.writes[node.outputs[0]]
    assert found.partition.region_of[relu].call is not None  # the convolution's kernel finishes it there


@pytest.mark.compiler
def test_a_residual_is_read_beside_what_lies_in_a_frame():
    """One value in a frame, another one not, a number for each channel: three ways to lie, in one finish."""
    net, x = begun(16, 6, 5)
    one = mg.conv(x, weight(net, "v", 16, 16, 1, 1))
    two = mg.relu(mg.conv(one, weight(net, "w", 16, 16, 1, 1)) + weight(net, "b", 16, 1, 1) + x)
    z = mg.conv(two, weight(net, "u", 16, 16, 3, 3), padding=((2, 0), (0, 2))) + two
    found = holds(net, z=z)
    assert framed(found) == ["relu"]


@pytest.mark.compiler
def test_one_frame_for_two_paddings():
    net, x = begun(16, 8, 8)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1)))
    a = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1)
    b = mg.conv(y, weight(net, "u", 16, 16, 5, 5), padding=2)
    found = holds(net, a=a, b=b)
    assert framed(found) == ["relu"]
    assert len(copied(found)) == 1  # from the middle of the one into the other


@pytest.mark.compiler
def test_one_axis():
    net, x = begun(16, 11)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1)))
    z = mg.conv(y, weight(net, "w", 16, 16, 3), padding=1)
    assert framed(holds(net, z=z)) == ["relu"]


@pytest.mark.compiler
def test_sums_of_what_lies_in_a_frame():
    """Statistics and their gradients read rows that lie apart."""
    net, x = begun(8, 9, 7)
    y = mg.conv(x, weight(net, "v", 16, 8, 3, 3), padding=1)
    y = mg.relu(layers.batch_norm(y))
    z = mg.conv(y, weight(net, "w", 8, 16, 3, 3), padding=1)
    pooled = mg.mean(y, axes=(2, 3))
    largest = mg.max(y, axes=(0, 1))
    assert framed(holds(net, z=z, pooled=pooled, largest=largest)) == ["relu"]


@pytest.mark.compiler
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients(stride):
    net, x = begun(8, 9, 7)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 8, 3, 3), padding=1, stride=stride))
    loss = mg.mean(mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1) ** 2)
    dv, dw = mg.gradient(loss, net.parameters)
    assert "relu" in framed(holds(net, loss=loss, dv=dv, dw=dw))


def refused(net: mg.Builder, **outputs: mg.Tensor) -> None:
    found = holds(net, **outputs)
    assert not framed(found)
    assert len(copied(found)) == 1


@pytest.mark.compiler
def test_what_is_given_out_is_given_out_dense():
    net, x = begun(16, 8, 8)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1)))
    z = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1)
    holds(net, y=y, z=z)


@pytest.mark.compiler
def test_what_is_read_as_a_row_of_numbers_has_no_frame():
    net, x = begun(4, 4, 16)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1), layout="NHWC"))
    flat = mg.matmul(mg.reshape(y, ("N", 256)), weight(net, "m", 256, 3))
    z = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1, layout="NHWC")
    refused(net, flat=flat, z=z)


@pytest.mark.compiler
def test_what_a_plain_kernel_reads_has_no_frame():
    net, x = begun(4, 4, 16)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1), layout="NHWC"))
    sums = mg.cumsum(y, axis=2)
    z = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1, layout="NHWC")
    refused(net, sums=sums, z=z)


@pytest.mark.compiler
def test_what_a_kernel_reads_through_a_view_has_no_frame():
    """A matrix product of images of one pixel reads them where they lie, turned back and flattened."""
    net, x = begun(16, 1, 1)
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1)))
    flat = mg.matmul(mg.flatten(y), weight(net, "m", 16, 3))
    z = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1)
    refused(net, flat=flat, z=z)


@pytest.mark.compiler
def test_what_is_the_weight_of_another_convolution_has_no_frame():
    net = mg.Builder("net")
    x = net.input("x", (16, 16, 3, 3))
    y = mg.relu(mg.conv(x, weight(net, "v", 16, 16, 1, 1)))
    z = mg.conv(y, weight(net, "w", 16, 16, 3, 3), padding=1)
    other = mg.conv(weight(net, "u", 2, 16, 6, 6), y)
    refused(net, z=z, other=other)


@pytest.mark.compiler
def test_an_input_has_no_frame():
    net, x = begun(16, 8, 8)
    z = mg.conv(x, weight(net, "w", 16, 16, 3, 3), padding=1)
    assert not framed(holds(net, z=z))
