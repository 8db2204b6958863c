"""Programs of optimized graphs: what is computed once is computed anew when the state has moved on."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core.frozen import Prologue, split
from minigraph.core.ir import Value
from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass, Step
from minigraph.core.rewrite import Rule, rewrite
from minigraph.passes import fold_before, scale_and_shift
from minigraph.passes.pipelines import INFERENCE

ROUNDING = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-13}  # of the largest number of an output


def network(dtype: str = "float32") -> mg.Graph:
    """Two convolutions with batch norm and ReLU, and a linear layer."""
    net = mg.Builder("network")
    image, label = net.input("image", ("N", 2, 5, 5), dtype), net.input("label", ("N",), "int64")
    h = image
    for width in (3, 4):
        h = mg.relu(layers.batch_norm(layers.conv2d(h, width, 3, padding=1, bias=False)))
    logits = layers.linear(mg.global_avg_pool(h), 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def norm_behind_relu() -> mg.Graph:
    """Its scale goes into the convolution where it is positive."""
    net = mg.Builder("norm_behind_relu")
    h = mg.relu(layers.conv2d(net.input("image", ("N", 2, 5, 5)), 3, 3, bias=False))
    return net.build(y=layers.batch_norm(h, frozen=True))


def norm_before_padding() -> mg.Graph:
    """Its shift meets the edges of the padded image."""
    net = mg.Builder("norm_before_padding")
    h = layers.batch_norm(net.input("image", ("N", 2, 5, 5)), frozen=True)
    return net.build(y=layers.conv2d(h, 3, 3, padding=1, bias=False))


def batch(n: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"image": rng.normal(size=(n, 2, 5, 5)), "label": rng.integers(0, 3, n)}


IMAGE = {"image": batch()["image"]}


def stirred(graph: mg.Graph, seed: int = 0) -> mg.State:
    """A state as after training: no scale is 1, no shift is 0, and scales have both signs."""
    rng, state = np.random.default_rng(seed), graph.init(seed)
    for name, array in state.items():
        if name.endswith(("gamma", "beta", "running_mean", "bias")):
            state[name] = rng.uniform(0.5, 2, array.shape) * rng.choice([-1, 1], array.shape)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 2, array.shape)
    return state


def as_written(graph: mg.Graph, state: mg.State) -> dict[str, np.ndarray]:
    """What the graph answers to IMAGE without any pass."""
    return mg.compile(graph, state, pipeline=())(**IMAGE)


def agree(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        bound = ROUNDING[array.dtype.name] * max(1.0, float(abs(array).max()))
        np.testing.assert_allclose(found[name], array, rtol=0, atol=bound)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def kept(program: mg.Program) -> Counter[str]:
    """The ops of what each call runs, how often."""
    _, rest = split(program.graph)
    return Counter(node.op.name for node in rest.nodes)


def bytes_of(state: mg.State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}


# what compile does


@pytest.mark.parametrize("dtype", ROUNDING)
def test_an_inference_graph_is_folded_and_answers_the_same(dtype: str) -> None:
    graph = mg.inference(network(dtype), ["logits"])
    state = stirred(graph)
    program = mg.compile(graph, state)
    assert program.source is graph
    assert program.optimized.source is graph
    assert program.optimized.graph is program.graph
    assert kept(program) == {"conv": 2, "add": 3, "relu": 2, "mean": 1, "matmul": 1}
    agree(program(**IMAGE), as_written(graph, state))


def test_the_graph_and_the_state_stay_as_they_are() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    text, nodes, before = str(graph), graph.nodes, bytes_of(state)
    program = mg.compile(graph, state)
    program(**IMAGE)
    program.refresh()
    mg.optimize(graph, state)
    assert str(graph) == text
    assert graph.nodes is nodes
    assert bytes_of(state) == before


def test_two_programs_of_one_state_do_not_compound() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    first, second = mg.compile(graph, state), mg.compile(graph, state)
    wanted = first(**IMAGE)
    assert same(second(**IMAGE), wanted)
    assert same(first(**IMAGE), wanted)
    agree(wanted, as_written(graph, state))


def test_a_graph_that_was_optimized_can_be_compiled() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    done = mg.optimize(graph, state).graph
    assert mg.optimize(done, state).graph is done
    assert same(mg.compile(done, state)(**IMAGE), mg.compile(graph, state)(**IMAGE))
    agree(mg.compile(done, state, pipeline=())(**IMAGE), as_written(graph, state))


def test_an_input_that_nothing_reads_any_more_is_still_taken() -> None:
    net = mg.Builder("with_nothing")
    x, z = net.input("x", ("N",)), net.input("z", ("N",))
    graph = net.build(y=x + z * 0.0)

    def forget(given: mg.Graph) -> mg.Graph:
        """z · 0 = x − x"""
        (a,) = values("a")
        rule = Rule("forget", "z·0 = x − x", a * 0.0, lambda match, a: match.tensor(x.value) - match.tensor(x.value))
        return rewrite(given, (rule,))

    program = mg.compile(graph, mg.State(), pipeline=(forget,))
    assert not any(graph.inputs[1] in node.inputs for node in program.graph.nodes)
    assert np.array_equal(program(x=[1.0, 2.0], z=[5.0, 6.0])["y"], [1.0, 2.0])
    with pytest.raises(GraphError, match="'z' is missing"):
        program(x=[1.0, 2.0])
    with pytest.raises(GraphError, match="N = 2; got shape"):
        program(x=[1.0, 2.0], z=[5.0])


def test_the_part_of_a_training_graph_that_is_not_trained_is_frozen() -> None:
    """With a pipeline that folds: the default one leaves training graphs as they are written."""
    net = mg.Builder("body_and_head")
    image, label = net.input("image", ("N", 2, 5, 5)), net.input("label", ("N",), "int64")
    body = layers.conv2d(image, 4, 3, bias=False, name="body")
    body = mg.relu(layers.batch_norm(body, frozen=True, name="norm"))
    logits = layers.linear(mg.global_avg_pool(body), 3, name="head")
    model = net.build(loss=mg.cross_entropy(logits, label))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1), trainable="head.*")
    state, other = stirred(model), stirred(model)
    folded = mg.compile(step, state, pipeline=INFERENCE)
    written = mg.compile(step, other, pipeline=())
    assert "batch_norm_inference" in kept(written)
    assert "batch_norm_inference" not in kept(folded)
    for seed in range(3):
        agree(folded(**batch(seed=seed)), written(**batch(seed=seed)))
    for name in other:
        np.testing.assert_allclose(state[name], other[name], rtol=1e-5, atol=1e-6)
    everything = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    assert "batch_norm_inference" in kept(mg.compile(everything, stirred(model), pipeline=INFERENCE))


# when the state moves on


def test_after_more_training_a_program_answers_from_the_new_values() -> None:
    model = network()
    state = model.init()
    train = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.1)), state)
    graph = mg.inference(model, ["logits"])
    answer, fixed = mg.compile(graph, state), mg.compile(graph, state, snapshot=True)
    first = answer(**IMAGE)
    assert same(fixed(**IMAGE), first)
    for seed in range(4):
        train(**batch(seed=seed))
        agree(answer(**IMAGE), as_written(graph, state))
        assert same(fixed(**IMAGE), first)
    assert not same(answer(**IMAGE), first)
    fixed.refresh()
    assert same(fixed(**IMAGE), answer(**IMAGE))


def test_what_did_not_move_is_not_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    program, run = mg.compile(graph, state), Prologue.run
    computed: list[Any] = []

    def count(*given: Any) -> Any:
        computed.append(given)
        return run(*given)

    monkeypatch.setattr(Prologue, "run", count)
    program(**IMAGE)
    program(**IMAGE)
    assert not computed
    state["conv1.weight"] = state["conv1.weight"] * 2
    program(**IMAGE)
    program(**IMAGE)
    assert len(computed) == 1


def test_a_snapshot_keeps_what_is_not_folded_as_well() -> None:
    net = mg.Builder("plain")
    graph = net.build(y=layers.linear(net.input("x", ("N", 2)), 2, bias=False))
    state = graph.init()
    fixed, moving = mg.compile(graph, state, snapshot=True), mg.compile(graph, state)
    x = np.ones((1, 2))
    before = fixed(x=x)
    state["linear1.weight"] = state["linear1.weight"] + 1
    assert same(fixed(x=x), before)
    np.testing.assert_allclose(moving(x=x)["y"], before["y"] + 2, rtol=1e-6)


def positive(state: mg.State) -> None:
    state["bn1.gamma"] = np.abs(state["bn1.gamma"])


def one_negative(state: mg.State) -> None:
    state["bn1.gamma"] = np.abs(state["bn1.gamma"]) * [1, -1, 1]


@pytest.mark.parametrize("snapshot", [False, True])
def test_scales_that_change_their_sign_are_folded_otherwise(snapshot: bool) -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    positive(state)
    program = mg.compile(graph, state, snapshot=snapshot)
    for change, scales in ((one_negative, 1), (positive, 0), (one_negative, 1), (positive, 0)):
        change(state)
        if snapshot:
            program.refresh()
        agree(program(**IMAGE), as_written(graph, state))
        assert kept(program)["mul"] == scales
        assert kept(program)["add"] == 1
        assert ("only positive scales pass through relu" in program.report) == bool(scales)


def test_other_scales_of_the_same_sign_keep_the_graph() -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    positive(state)
    program = mg.compile(graph, state)
    before = program.graph
    state["bn1.gamma"] = state["bn1.gamma"] * 3
    agree(program(**IMAGE), as_written(graph, state))
    assert program.graph is before


def test_a_shift_of_zero_is_dropped_until_it_is_none() -> None:
    graph = norm_before_padding()
    state = graph.init()
    program = mg.compile(graph, state)
    for beta, sums in (([0, 0], 0), ([0, 1], 1), ([0, 0], 0)):
        state["bn1.beta"] = np.array(beta)
        agree(program(**IMAGE), as_written(graph, state))
        assert kept(program)["add"] == sums


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_impatient_threads")
def test_threads_see_the_old_values_or_the_new_ones() -> None:
    """One thread moves the state to and fro, two others ask; the graph is folded otherwise each time."""
    graph = norm_behind_relu()
    state = stirred(graph)
    answers = []
    for change in (positive, one_negative):
        change(state)
        answers.append(mg.compile(graph, state)(**IMAGE)["y"])
    program, wrong, done = mg.compile(graph, state), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            y = program(**IMAGE)["y"]
            if not any(np.array_equal(y, wanted) for wanted in answers):
                wrong.append(y)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for change, wanted in zip((positive, one_negative), answers):
            change(state)
            assert np.array_equal(program(**IMAGE)["y"], wanted)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_thread_refreshes_and_the_other_waits() -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    positive(state)
    runs: list[str] = []
    go, inside = threading.Event(), threading.Event()
    go.set()

    def slow(given: mg.Graph) -> mg.Graph:
        runs.append(threading.current_thread().name)
        inside.set()
        assert go.wait(timeout=30)
        return given

    program = mg.compile(graph, state, pipeline=(*INFERENCE, slow))
    one_negative(state)
    wanted = mg.compile(graph, state)(**IMAGE)
    answers: list[dict[str, np.ndarray]] = []
    threads = [threading.Thread(target=lambda: answers.append(program(**IMAGE)), name=name) for name in "ab"]
    go.clear()
    inside.clear()
    threads[0].start()
    assert inside.wait(timeout=30)
    threads[1].start()
    threads[1].join(timeout=0.05)  # time enough to do something wrong
    assert not answers
    go.set()
    for thread in threads:
        thread.join()
    assert runs == ["MainThread", "a"]
    assert len(answers) == 2
    assert all(same(answer, wanted) for answer in answers)


def test_a_refresh_that_fails_leaves_the_program_as_it_was() -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    positive(state)
    broken = False

    def picky(given: mg.Graph) -> mg.Graph:
        if broken:
            raise RuntimeError("not today")
        return given

    program = mg.compile(graph, state, pipeline=(*INFERENCE, picky))
    before = program.graph
    one_negative(state)
    broken = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not today"):
            program(**IMAGE)
    assert program.graph is before
    broken = False
    agree(program(**IMAGE), as_written(graph, state))


# pipelines


def test_a_pass_can_be_left_out_by_name() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    program = mg.compile(graph, state, without=["fold-before"])
    assert kept(program)["mul"] == 2
    assert "fold-before" not in [step.name for step in program.optimized.steps]
    agree(program(**IMAGE), as_written(graph, state))
    program = mg.compile(graph, state, without=["scale-and-shift"])
    assert kept(program)["batch_norm_inference"] == 2


def test_wrong_names_of_passes_are_refused() -> None:
    graph = norm_behind_relu()
    state = graph.init()
    with pytest.raises(GraphError, match=r"'fold-befor'; there are .*fold-before"):
        mg.compile(graph, state, without=["fold-befor"])
    with pytest.raises(GraphError, match="list of names, not 'fold-before'"):
        mg.compile(graph, state, without="fold-before")


def test_no_pipeline_runs_the_graph_as_it_is() -> None:
    graph = mg.inference(network(), ["logits"])
    program = mg.compile(graph, stirred(graph), pipeline=())
    assert program.graph is graph
    assert program.optimized.steps == ()
    assert kept(program)["batch_norm_inference"] == 2


def test_a_function_joins_a_pipeline() -> None:
    graph = mg.inference(network(), ["logits"])
    state, seen = stirred(graph), []

    def look(given: mg.Graph) -> mg.Graph:
        """Look at it."""
        seen.append(given)
        return given

    program = mg.compile(graph, state, pipeline=(*INFERENCE, look))
    assert program.optimized.steps[-1].name == "look"
    assert program.optimized.steps[-1].about == "Look at it."
    assert seen == [program.graph]
    assert mg.compile(graph, state, pipeline=(*INFERENCE, look), without=["look"]).graph.check()
    assert len(seen) == 1


def test_a_pass_that_gives_no_graph_is_named() -> None:
    graph = norm_behind_relu()
    with pytest.raises(GraphError, match="pass look gives a Graph, not a NoneType"):
        mg.compile(graph, graph.init(), pipeline=(Pass("look", "Looks.", function=lambda given: None),))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (INFERENCE[0], r"a pipeline is a tuple of passes, such as \(\*INFERENCE, my_pass\), not a Pass"),
        (lambda given: given, "a pipeline is a tuple of passes, .* not a function"),
        ("fold-before", "a pipeline is a tuple of passes, .* not a str"),
        ((INFERENCE,), "a pass is a Pass, or a function .* not a tuple"),
        (INFERENCE[0].rules, "a pass is a Pass, or a function .* not a Rule"),
        ((partial(replace, name="other"),), "function from graph to graph that has a name, not a partial"),
    ],
    ids=["pass", "function", "name", "nested", "rules", "partial"],
)
def test_what_is_no_pipeline_is_refused(pipeline: Any, message: str) -> None:
    graph = norm_behind_relu()
    for run in (mg.optimize, mg.compile):
        with pytest.raises(GraphError, match=message):
            run(graph, graph.init(), pipeline=pipeline)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda graph: graph.prune([]), "the pass wrong turns the outputs y: .* into none"),
        (
            lambda graph: replace(graph, outputs={**graph.outputs, "z": graph.nodes[0].outputs[0]}),
            "the pass wrong turns the outputs y: .* into y: .*, z: ",
        ),
        (
            lambda graph: replace(graph, inputs=(*graph.inputs, Value(graph.inputs[0].type, "mask"))),
            "the pass wrong needs inputs that nobody gives: mask: float32",
        ),
        (
            lambda graph: replace(
                graph, state=(*graph.state, replace(graph.state[0], value=Value(graph.state[0].value.type, "w")))
            ),
            "the pass wrong needs state that nobody gives: w: float32",
        ),
    ],
    ids=["output lost", "output added", "input added", "state added"],
)
def test_a_pass_leaves_the_ends_of_a_graph(spoil: Callable[[mg.Graph], mg.Graph], message: str) -> None:
    graph = norm_behind_relu()
    with pytest.raises(GraphError, match=message):
        mg.compile(graph, graph.init(), pipeline=(*INFERENCE, Pass("wrong", "", function=spoil)))


def test_a_hook_sees_each_step() -> None:
    graph = mg.inference(network(), ["logits"])
    steps: list[Step] = []
    optimized = mg.optimize(graph, stirred(graph), hook=steps.append)
    assert tuple(steps) == optimized.steps
    assert [step.name for step in steps] == [p.name for p in INFERENCE]
    assert steps[0].before is graph
    assert [step.after for step in steps[:-1]] == [step.before for step in steps[1:]]
    assert steps[-1].after is optimized.graph
    assert all(step.seconds >= 0 for step in steps)
    fired = Counter(fired.rule for step in steps for fired in step.fired)
    assert fired["scale-and-shift"] == fired["scale-into-weight"] == 2
    steps.clear()
    program = mg.compile(graph, stirred(graph), hook=steps.append)
    assert tuple(steps) == program.optimized.steps


def test_optimize_needs_a_graph() -> None:
    with pytest.raises(GraphError, match="needs a Graph, not a State"):
        mg.optimize(mg.State())  # type: ignore[arg-type]


def test_without_a_state_what_rests_on_numbers_is_not_done() -> None:
    graph = norm_behind_relu()
    optimized = mg.optimize(graph)
    assert not optimized.facts
    assert "only positive scales pass through relu, and without a state these are not known" in [
        refused.why for refused in optimized.refused
    ]
    state = graph.init()
    assert mg.verify(graph, optimized.graph, state)
    assert len(mg.optimize(graph, state).facts) == 1


# what the environment asks for


def turned(given: mg.Graph) -> mg.Graph:
    """A wrong pass: it adds where the graph multiplies."""
    a, b = values("a b")
    return rewrite(given, (Rule("turn", "a·b = a + b", a * b, lambda match, a, b: a + b),))


def product() -> mg.Graph:
    net = mg.Builder("product")
    return net.build(y=net.input("x", ("N", 2)) * net.parameter("w", (2,), mg.init.ones))


def test_debug_prints_what_each_pass_did(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    pipeline = (scale_and_shift.PASS, fold_before.PASS)
    monkeypatch.setenv("MINIGRAPH_DEBUG", "1")
    mg.compile(graph, state, pipeline=pipeline)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["scale-and-shift", "fold-before"]
    assert all(" nodes, " in line and line.endswith(" ms") for line in lines)
    monkeypatch.setenv("MINIGRAPH_DEBUG", "2")
    mg.compile(graph, state, pipeline=pipeline)
    text = capsys.readouterr().err
    assert "\n  scale-and-shift at bn1.batch_norm_inference: bn1.batch_norm_inference\n" in text
    assert "\n  not scale-through at " in text
    monkeypatch.setenv("MINIGRAPH_DEBUG", "0")
    mg.compile(graph, state, pipeline=pipeline)
    assert capsys.readouterr().err == ""


def test_check_finds_a_wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = product()
    state = graph.init()
    program = mg.compile(graph, state, pipeline=(turned,))
    assert np.array_equal(program(x=[[2.0, 3.0]])["y"], [[3.0, 4.0]])  # nobody looks
    monkeypatch.setenv("MINIGRAPH_CHECK", "1")
    with pytest.raises(GraphError, match=r"the pass turned changes what 'product' computes: .*'y'"):
        mg.compile(graph, state, pipeline=(turned,))
    right = mg.inference(network(), ["logits"])
    assert mg.compile(right, stirred(right)).report


@pytest.mark.parametrize("name", ["MINIGRAPH_DEBUG", "MINIGRAPH_CHECK"])
def test_other_values_in_the_environment_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "yes")
    graph = product()
    with pytest.raises(GraphError, match=f"{name} is 0.* 'yes'"):
        mg.compile(graph, graph.init())


# looking inside


def test_values_are_those_of_the_graph_that_was_given() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    program, written = mg.compile(graph, state), mg.compile(graph, state, pipeline=())
    names = list(graph.values)
    assert {"conv1.conv", "bn1.batch_norm.y"} < set(names)
    assert kept(program)["batch_norm_inference"] == 0
    assert same(program.values(names, **IMAGE), written.values(names, **IMAGE))
    state["bn1.gamma"] = state["bn1.gamma"] * 2
    assert same(program.values(names, **IMAGE), written.values(names, **IMAGE))


def test_what_is_not_finite_is_found_in_the_graph_that_was_given() -> None:
    graph = norm_behind_relu()
    state = stirred(graph)
    state["bn1.gamma"] = np.full(3, 3e38)
    program = mg.compile(graph, state)
    assert kept(program)["batch_norm_inference"] == 0
    found = str(program.first_not_finite(image=10 * IMAGE["image"]))
    assert "batch_norm_inference 'bn1.batch_norm_inference' is the first value with" in found
    state["bn1.running_var"] = np.full(3, np.nan)
    assert "state 'bn1.running_var' has 3 NaN" in str(program.first_not_finite(**IMAGE))


def test_peak_bytes_are_those_of_the_optimized_graph() -> None:
    graph = mg.inference(network(), ["logits"])
    state = stirred(graph)
    program, written = mg.compile(graph, state), mg.compile(graph, state, pipeline=())
    program(**IMAGE)
    written(**IMAGE)
    image = 3 * 4 * 5 * 5 * 4  # the larger of the two, in bytes
    assert 2 * image <= program.peak_bytes <= written.peak_bytes < 4 * image


# reports


def test_a_report_says_what_was_done() -> None:
    graph = mg.inference(network(), ["logits"])
    report = mg.compile(graph, stirred(graph)).report.splitlines()
    assert "of them computed once" in report[0]
    told = {line.split(":")[0]: line for line in report[1:]}
    assert "(scale-and-shift 2 times)" in told["scale-and-shift"]
    assert "scale-into-weight 2 times" in told["fold-before"]
    assert not any("conv" in name for name in told), "nothing is left to say of the convolutions"


def shared() -> Iterator[tuple[str, mg.Graph, str]]:
    """Graphs in which something stays, and what the report says of it."""
    norm = "bn1.batch_norm_inference"
    net = mg.Builder("two_readers")
    y = layers.conv2d(net.input("image", ("N", 2, 5, 5)), 3, 3, bias=False)
    yield (
        "read twice",
        net.build(a=layers.batch_norm(y, frozen=True), b=mg.tanh(y)),
        f"{norm}: conv1.conv is read by {norm} and tanh",
    )
    net = mg.Builder("of_an_input")
    y = layers.batch_norm(net.input("image", ("N", 2, 5, 5)), frozen=True)
    yield "input", net.build(y=mg.tanh(y)), f"{norm}: image is an input, with no weight before it"
    net = mg.Builder("behind_tanh")
    y = mg.tanh(layers.conv2d(net.input("image", ("N", 2, 5, 5)), 3, 3))
    yield "tanh", net.build(y=layers.batch_norm(y, frozen=True)), "through which no scale passes"
    net = mg.Builder("of_any_size")
    y = layers.batch_norm(net.input("image", ("N", 2, "H", "W")), frozen=True)
    y = layers.conv2d(y, 3, 3, padding=1, bias=False)
    yield "size", net.build(y=y), "conv1.conv: windows of conv1.conv reach into padding"


@pytest.mark.parametrize(("graph", "sentence"), [pytest.param(g, s, id=name) for name, g, s in shared()])
def test_a_report_says_why_not_more(graph: mg.Graph, sentence: str) -> None:
    state = stirred(graph)
    program = mg.compile(graph, state)
    assert sentence in program.report
    agree(program(**IMAGE), as_written(graph, state))
