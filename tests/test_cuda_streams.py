"""Through CuPy, whose work is done when somebody waits for it: uploads, and streams that wait for each other."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import Processor
from cuda_programs import DEVICE, Foreign, data, step_of
from cupy_on_cpu import Stream
from test_c_program import answering, assert_near, batch, classifier, contents, counting, numbers_of

import minigraph as mg
from minigraph import GraphError
from minigraph.backends.cupy import device as gpu
from minigraph.tools import fit as fitting

pytestmark = [pytest.mark.cxx, pytest.mark.usefixtures("on_device")]


def test_steps_through_cupy_are_those_of_numpy(cupy: Any) -> None:
    graph = step_of("cnn")
    a, b = graph.init(seed=0), graph.init(seed=0)
    here, there = mg.compile(graph, a, "cupy"), mg.compile(graph, b, "numpy")
    snapshots = []
    for step, n in enumerate((5, 5, 3, 5, 3)):
        inputs = data(graph, n, step)
        found = here(**inputs)
        for array in inputs.values():
            array[:] = 0  # the caller's own again
        assert_near(found, there(**data(graph, n, step)))
        snapshots.append((a.copy(), b.copy()))
        a["head.bias"] = b["head.bias"] = np.full(3, 0.1 * step, "float32")
    for one, other in snapshots:
        assert_near(one, other)


@pytest.mark.parametrize("augment", [None, lambda batch, rng: {**batch, "image": 0.5 * batch["image"]}])
@pytest.mark.parametrize("eager", [False, True])
def test_a_training_through_cupy_is_that_of_the_other_device(
    eager: bool, augment: Any, cupy: Any, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: with data that live there, and with batches that are uploaded, in windows of many steps."""
    cupy.gpu.eager = eager
    monkeypatch.setattr(fitting, "SECONDS", 1e9)
    graph, states = step_of("mlp"), []
    given = data(graph, 50, 0)
    for device in (DEVICE(), processor):
        monkeypatch.setattr(gpu, "device", lambda device=device: device)
        state = graph.init(seed=0)
        mg.fit(mg.compile(graph, state, "cupy"), given, epochs=2, batch_size=8, drop_last=True, augment=augment)
        states.append(contents(state))
    assert states[0] == states[1]


@pytest.mark.parametrize("eager", [False, True])
def test_uploads_keep_in_step(eager: bool, cupy: Any) -> None:
    """Nothing is uploaded over what was not yet taken, nor put where an upload still reads, however the streams run."""
    cupy.gpu.eager = eager
    program, state = counting(4, "cupy")
    for x in range(20):
        program(x=2**x)
    assert numbers_of(state) == {2**20 - 1}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_that_was_interrupted_spoils_none_after_it(
    eager: bool, at: int, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload may have begun of which nobody knows when it ends."""
    cupy.gpu.eager = eager
    program, state = counting(4, "cupy")
    program(x=1)
    calls = iter(range(100))

    def stopping(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(stream: Stream, *given: Any) -> Any:
            found = do(stream, *given)
            if stream is not cupy.gpu.streams[0] and next(calls) == at:
                raise KeyboardInterrupt
            return found

        return call

    with monkeypatch.context() as patch:
        for name in ("record", "wait_event"):
            patch.setattr(Stream, name, stopping(getattr(Stream, name)))
        with pytest.raises(KeyboardInterrupt):
            program(x=10)
    for power in range(2, 7):
        program(x=10**power)
    assert numbers_of(state) == {1_111_101}


def test_a_call_waits_for_nothing_until_an_output_is_looked_at(cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = answering(classifier().init(seed=0), "numpy")
    infer(image=image)  # which is compiled, and captured
    stream = cupy.gpu.all_streams[DEVICE().stream]
    stream.synchronize()
    found = [infer(image=k * image)["logits"] for k in range(2)]
    assert stream.waiting
    for k, logits in enumerate(found):
        np.testing.assert_allclose(logits, wanted(image=k * image)["logits"], rtol=1e-4, atol=1e-5)
    assert not stream.waiting


@pytest.mark.parametrize("how", ["__dlpack__", "__cuda_array_interface__"])
def test_the_stream_of_another_library_waits_for_what_it_takes(how: str, cupy: Any) -> None:
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    logits, theirs = infer(image=image)["logits"], cupy.gpu.streams[0]
    if how == "__dlpack__":
        address, form = logits.__dlpack__(stream=theirs.ptr)
        assert form == (wanted.shape, wanted.dtype)
        assert logits.__dlpack_device__() == (2, 0)
    else:
        address, _ = logits.__cuda_array_interface__["data"]
    theirs.synchronize()
    assert ctypes.string_at(address, wanted.nbytes) == wanted.tobytes()


def test_a_step_waits_for_what_the_caller_has_begun_on_the_gpu(cupy: Any) -> None:
    """Whose kernels may still read an output that is already given up."""
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    infer(image=image)
    done: list[int] = []
    cupy.gpu.streams[-1].add(lambda: done.append(1))
    np.asarray(infer(image=image)["logits"])
    assert done == [1]


@pytest.mark.parametrize("eager", [False, True])
def test_the_caller_may_write_to_an_input_when_the_call_has_returned(eager: bool, cupy: Any) -> None:
    """On a stream of its own, which does not wait for the call by itself; or give it back, and be given it anew."""
    cupy.gpu.eager = eager
    infer, image = answering(classifier().init(seed=0), "cupy"), batch()["image"]
    wanted = np.asarray(infer(image=image)["logits"])
    theirs, numbers = cupy.gpu.streams[0], image.copy()
    found = infer(image=Foreign(numbers))["logits"]
    theirs.add(lambda: numbers.fill(0))
    theirs.synchronize()
    assert not numbers.any()
    assert np.array_equal(found, wanted)


def test_pinned_memory_is_held_until_it_was_read(cupy: Any) -> None:
    """Also where the program is gone by then."""
    program, _ = counting(4, "cupy")
    program(x=5)
    device = DEVICE()
    device.finish()
    program(x=6)
    uploading = device._uploading  # type: ignore[attr-defined]
    del program
    assert [moment.done for moment, _ in uploading] == [False]
    device.finish()
    other, _ = counting(4, "cupy")
    other(x=1)
    assert len(uploading) == 1


def test_a_fork_does_not_reach_the_gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program, state = counting(4, "cupy")
    program(x=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        for use in (lambda: state["a"], lambda: program(x=1)):
            with pytest.raises(GraphError, match="a process that was forked reaches no GPU"):
                use()
    program(x=1)
    assert numbers_of(state) == {2}
