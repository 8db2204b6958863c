"""Arrays on a GPU: inputs that lie there already, indices among them, and outputs that stay there."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import Processor
from cuda_programs import Foreign, step_of
from test_c_program import answering, batch, classifier, training

import minigraph as mg
from minigraph import GraphError, State
from minigraph.backends.cupy import device as gpu
from minigraph.backends.cupy.arrays import GpuArray, moved
from minigraph.backends.cupy.checks import indices
from minigraph.backends.lower import lower
from minigraph.core.ir import Graph

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


# outputs


def test_outputs_stay_as_they_are(cupy: Any) -> None:
    """Also where their memory was others' before, and while nobody looks at them."""
    net = mg.Builder("doubled")
    x = net.input("x", ("N",))
    run = mg.compile(net.build(few=mg.sum(x), same=mg.sum(x), many=2 * x), State(), "cupy")
    many = np.arange(3000, dtype="float32")
    found = [run(x=many[:n] + n) for n in (3000, 2000, 3000, 10) * 40]
    for n, outputs in zip((3000, 2000, 3000, 10) * 40, found):
        right = many[:n] + n
        assert np.array_equal(outputs["many"], 2 * right)
        assert outputs["few"] == outputs["same"] == pytest.approx(right.sum(dtype="float64"), rel=1e-5)
        outputs["few"][...] = 7
        assert (float(outputs["few"]), float(outputs["same"])) != (7, 7)


def array(numbers: Any, dtype: str = "float32") -> GpuArray:
    return moved(gpu.device(), np.asarray(numbers, dtype))


def test_an_array_on_the_gpu_is_numpys_to_who_looks_at_it(device: gpu.Device) -> None:
    x, right = array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 2, 3], [4, 5, 6]], "float32")
    assert (x.shape, x.dtype.name, x.ndim, x.size, x.nbytes, len(x)) == ((2, 3), "float32", 2, 6, 24, 2)
    assert type(np.asarray(x)) is np.ndarray
    assert np.asarray(x, "int64").tolist() == right.tolist()
    assert (x.argmax(axis=1) == [2, 2]).all()
    assert x.T.shape == (3, 2)
    for found, wanted in [
        (x + 1, right + 1),
        (1 - x, 1 - right),
        (x @ right.T, right @ right.T),
        (right * x, right * right),
        (np.exp(x), np.exp(right)),
        (np.add.reduce(x), right.sum(0)),
        (np.stack([x, x]), np.stack([right, right])),
        (x[1, ::2], right[1, ::2]),
        (list(x), list(right)),
        (pickle.loads(pickle.dumps(x)), right),
        (copy.deepcopy(x), right),
    ]:
        np.testing.assert_array_equal(found, wanted, strict=not isinstance(found, list))
    assert 3 in x
    assert str(x) == str(right)
    assert repr(x) == f"Gpu{right!r}"
    one = array(2)
    assert (float(one), int(one), bool(one), f"{one:.2f}") == (2.0, 2, True, "2.00")
    assert [5, 6, 7][array(1, "int64")] == 6
    with pytest.raises(TypeError, match="no length"):
        len(one)
    with pytest.raises(AttributeError, match="no 'spin'"):
        x.spin()
    with pytest.raises(ValueError, match="by a copy"):
        np.array(x, copy=False)


def test_an_array_on_the_gpu_is_written_to_there_or_not_at_all(device: gpu.Device) -> None:
    x = array([1, 2, 3])
    x[1:] = 7
    assert x.tolist() == [1, 7, 7]
    before = x
    x += array([1, 1, 1])
    assert x is before
    assert x.tolist() == [2, 8, 8]
    x *= 2
    assert x.tolist() == [4, 16, 16]
    host = np.zeros(3, "float32")
    assert np.add(x, x, out=host) is host
    assert host.tolist() == [8, 32, 32]
    for change in (x.sort, lambda: x.fill(0)):
        with pytest.raises(ValueError, match="read-only"):
            change()


def test_other_libraries_take_an_array_where_it_lies(processor: Processor) -> None:
    x = array([[1, 2], [3, 4]])
    taken = np.from_dlpack(x)
    taken[0, 0] = 9
    assert x.tolist() == [[9, 2], [3, 4]]
    told = x.__cuda_array_interface__
    assert told["data"] == (taken.ctypes.data, False)
    assert (told["shape"], told["typestr"], told["version"]) == ((2, 2), "<f4", 3)


def test_an_output_becomes_an_input(cupy: Any) -> None:
    """On the GPU, and on other backends."""
    net = mg.Builder("doubled")
    graph = net.build(y=2 * net.input("x", (3,)))
    here, there = mg.compile(graph, State(), "cupy"), mg.compile(graph, State(), "numpy")
    y = np.ones(3, "float32")
    for _ in range(5):
        y = here(x=y)["y"]
    assert y.tolist() == there(x=np.full(3, 16, "float32"))["y"].tolist() == [32] * 3
    assert there(x=y)["y"].tolist() == [64] * 3


# inputs


def test_what_lies_on_the_gpu_stays_there(processor: Processor) -> None:
    state = classifier().init(seed=0)
    infer = answering(state, "cupy")
    image = batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    processor.events.clear()
    assert np.array_equal(infer(image=Foreign(image))["logits"], wanted)
    assert processor.events == ["copy", "replay", "copy", "read"]
    assert np.array_equal(infer(image=Foreign(image.astype("float64")))["logits"], wanted)
    with pytest.raises(GraphError, match=r"input 'image' is float32\[N, 4\].*; got shape \(6, 3\)"):
        infer(image=Foreign(np.ascontiguousarray(image[:, :3])))
    assert np.allclose(infer.values(["logits"], image=Foreign(image))["logits"], wanted, atol=1e-5)
    assert infer.first_not_finite(image=Foreign(image)) is None
    with pytest.raises(GraphError, match="input 'image' lies on a GPU, where this program does not run"):
        answering(state, "numpy")(image=Foreign(image))
    train = training(state, "cupy")
    with pytest.raises(GraphError, match=r"label 7 at \[4\] is outside of 0 to 2"):
        train(image=Foreign(image), label=Foreign(np.array([0, 1, 2, 0, 7, 1])))


def test_an_array_on_the_gpu_goes_through_cupy(cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = infer(image=image)["logits"]
    for given in (image, image.astype("float64")):
        assert np.array_equal(infer(image=Foreign(given))["logits"], wanted)


def test_bfloat16_of_other_libraries_has_no_name(processor: Processor) -> None:
    """They call it two bytes, of which the declared dtype tells what they are."""
    net = mg.Builder("doubled")
    graph, x = net.build(y=2 * net.input("x", (3,), "bfloat16")), np.array([1, -0.5, 3e38], "bfloat16")
    program = mg.compile(graph, State(), "cupy")
    wanted = np.asarray(program(x=x)["y"])
    assert (wanted.dtype, wanted.tolist()) == (x.dtype, [2, -1, np.inf])
    processor.events.clear()
    assert np.asarray(program(x=Foreign(x))["y"]).tobytes() == wanted.tobytes()
    assert processor.events == ["copy", "replay", "copy", "read"]
    single = mg.compile(mg.parse(str(graph).replace("bfloat16", "float32")), State(), "cupy")
    with pytest.raises(GraphError, match=r"input 'x' is float32\[3\]; got \|V2"):
        single(x=Foreign(x))


# indices


def test_a_call_whose_labels_fit_waits_for_no_verdict(processor: Processor) -> None:
    state = classifier().init(seed=0)
    train, given = training(state, "cupy"), batch()
    on_gpu = {name: moved(processor, x) for name, x in given.items()}
    foreign = {name: Foreign(x) for name, x in given.items()}
    train(**given)
    for inputs, waits in ((given, 0), (on_gpu, 0), (foreign, 1)):
        processor.events.clear()
        train(**inputs)
        assert processor.events.count("read") == waits
    on_gpu["label"].__cuda_array_interface__  # noqa: B018 (somebody may write to it from now on)
    processor.events.clear()
    train(**on_gpu)
    assert processor.events.count("read") == 1


def places(graph: Graph, **sizes: int) -> Any:
    return indices(lower(graph.bind(**sizes) if sizes else graph))


def test_which_inputs_are_indices_and_of_what() -> None:
    assert places(step_of("mlp"), N=4) == {"label": (0, 2)}
    net = mg.Builder("picked")
    table, tokens, n = net.input("table", (7, 3)), net.input("tokens", ("N", 2), "int32"), net.input("n", (4,), "int64")
    fixed = net.constant(np.array([0, -7]))
    turned = mg.gather(table, mg.transpose(tokens))
    assert places(net.build(y=turned), N=5) == {"tokens": (-7, 6)}
    assert places(net.build(y=turned, z=mg.one_hot(tokens, 5)), N=5) == {"tokens": (0, 4)}
    assert places(net.build(y=mg.gather(table, fixed))) == {}
    assert places(net.build(y=mg.gather(table, n + 1))) is None
    assert places(net.build(y=mg.exp(table))) == {}
