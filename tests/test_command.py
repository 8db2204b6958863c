"""The command line: what each command prints and writes, and one sentence and a status where something is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save as write_arrays

import minigraph as mg
import minigraph.onnx as models
from minigraph import layers
from minigraph.driver.step import PRECISIONS
from minigraph.tools import command, files

ROOT = Path(__file__).parent.parent

PASSES = '''
"""Passes that somebody wrote."""

from minigraph.core.pattern import values
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Rule
from minigraph.ops.pointwise import relu, tanh

(x,) = values("x")
SMALL = Condition("it is small", lambda match: f"{match.node.name} is not small")


def keep(graph):
    """Keeps the graph."""
    return graph


def fails(graph):
    return None


once = Pass("once", "Of two relus, one is enough.", (
    Rule("relu-twice", "relu(relu(x)) = relu(x)", relu(relu(x)), lambda match, x: relu(x)),
    Rule("never", "relu(x) = relu(x)", relu(x), lambda match, x: relu(x), pays=(SMALL,)),
))
wrong = Pass("wrong", "Leaves out what it must not.", (Rule("no-tanh", "tanh(x) = x", tanh(x), lambda match, x: x),))
no_relus = Pass("no-relus", "Takes relus away.", (Rule("relu-away", "relu(x) = x", relu(x), lambda match, x: x),))
MINE = (once, keep)
NUMBER = 3
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where we are; modules imported from here are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("minigraph") and str(getattr(sys.modules[name], "__file__", "")).startswith(
            str(tmp_path)
        ):
            del sys.modules[name]


def network():
    net = mg.Builder("net")
    image, label = net.input("image", ("N", 2, 6, 6)), net.input("label", ("N",), "int64")
    h = mg.relu(mg.relu(layers.batch_norm(layers.conv2d(image, 3, 3, bias=False))))
    logits = mg.tanh(layers.linear(mg.flatten(h), 5))
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


@pytest.fixture
def model(folder):
    """A file of a network as it is trained."""
    mg.save("model.safetensors", network(), network().init(seed=1))
    return "model.safetensors"


@pytest.fixture
def answering(folder):
    """A file of the network that answers."""
    graph = mg.inference(network(), ["logits"])
    mg.save("net.safetensors", graph, network().init(seed=1))
    return "net.safetensors"


@pytest.fixture
def says(capsys):
    """Runs a command that does its work; what it prints."""

    def run(*arguments):
        assert command.main([str(a) for a in arguments]) == 0, capsys.readouterr().err
        done = capsys.readouterr()
        assert done.err == ""
        return done.out

    return run


@pytest.fixture
def refuses(capsys):
    """Runs a command that is refused; the sentence."""

    def run(*arguments, status=1):
        found: object
        try:
            found = command.main([str(a) for a in arguments])
        except SystemExit as stop:
            found = stop.code
        assert found == status
        error = capsys.readouterr().err
        assert error.startswith("minigraph: ")
        assert "Traceback" not in error
        return error.removeprefix("minigraph: ")

    return run


# looking


def test_summary_prints_the_table(model, says):
    assert says("summary", model) == f"{mg.summary(network())}\n"
    assert says("summary", model, "N=64") == f"{mg.summary(network(), N=64)}\n"


def test_text_prints_what_parse_reads(model, says):
    assert str(mg.parse(says("text", model))) == str(network())


def test_draw_writes_a_picture(model, says):
    assert says("draw", model, "-o", "net.dot", "--expand", "bn1", "--all") == "wrote net.dot\n"
    assert Path("net.dot").read_text().startswith("digraph")


def test_draw_shows_what_became_of_a_graph(model, answering, says):
    says("draw", model, "--after", answering, "-o", "net.dot")
    drawn = Path("net.dot").read_text()
    assert "batch_norm_inference" in drawn
    assert "running_average" in drawn


def test_draw_says_what_to_install_where_a_format_cannot_be_written(model, monkeypatch, capsys):
    monkeypatch.setattr("minigraph.tools.draw.can_render", lambda format: False)
    assert command.main(["draw", model, "-o", "net.png"]) == 0
    done = capsys.readouterr()
    assert done.out == "wrote net.dot\n"
    assert done.err.startswith("minigraph: wrote net.dot instead of .png; to have that, install Graphviz")


def test_check_finds_nothing(answering, says):
    text = says("check", answering)
    assert "7 arrays" in text
    assert text.endswith("fine\n")


def test_check_says_what_is_not_needed_and_what_begins_anew(says):
    net = mg.Builder("net")
    x, _ = net.input("x", (2,)), net.input("z", (3,))
    net.parameter("idle", (4,), mg.init.zeros)
    w = net.parameter("w", (2,), mg.init.zeros)
    graph = net.build(y=layers.dropout(x * w, 0.5))
    state = graph.init()
    kept = mg.State({name: state[name] for name in ("w", "idle")})
    mg.save("net.safetensors", graph, kept)
    text = says("check", "net.safetensors")
    assert "no output needs: idle\n" in text
    assert "no output needs the inputs: z\n" in text
    made = [name for name in graph.variables if name not in kept]
    assert f"begins anew: {', '.join(made)}\n" in text


def test_check_of_a_graph_alone(says):
    mg.save("net.safetensors", network())
    assert "state: none in the file" in says("check", "net.safetensors")


def test_check_refuses_numbers_that_are_not_finite(refuses):
    state = network().init()
    broken = state["conv1.weight"].copy()
    broken[0, 0, 0, :2] = np.nan, np.inf
    state["conv1.weight"] = broken
    mg.save("net.safetensors", network(), state)
    assert "NaN or infinite: conv1.weight has 2 of 54" in refuses("check", "net.safetensors")


# running


def expected(image):
    graph = mg.inference(network(), ["logits"])
    return mg.compile(graph, network().init(seed=1))(image=image)["logits"]


def answer(file, image):
    graph, state = mg.load(file)
    assert state is not None
    return mg.compile(graph, state)(image=image)["logits"]


@pytest.fixture
def image():
    array = np.random.default_rng(3).normal(size=(2, 2, 6, 6)).astype("float32")
    np.save("image.npy", array)
    return array


def test_run_prints_outputs(answering, image, says):
    text = says("run", answering, "--input", "image=image.npy")
    found = expected(image)
    assert text.startswith(f"logits  float32[2, 5]  min {found.min():.6g}  mean ")
    assert f"first {found[0, 0]:.6g} " in text
    assert text.endswith(" ...\n")


@pytest.mark.parametrize("form", ["image=one.npz", "one.npz", "image=image.npy"])
def test_run_writes_outputs(answering, image, says, form):
    np.savez("one.npz", image=image)
    assert says("run", answering, "--input", form, "-o", "deep/out.npz") == "wrote deep/out.npz: logits\n"
    with np.load("deep/out.npz") as written:
        assert list(written) == ["logits"]
        np.testing.assert_array_equal(written["logits"], expected(image))


def test_run_writes_outputs_of_any_name(says):
    net = mg.Builder()
    x = net.input("x", ("N",))
    mg.save("net.safetensors", net.build({"file": x + 1, "é": mg.sum(x)}), mg.State())
    says("run", "net.safetensors", "--random", "N=3", "-o", "out.npz")
    with np.load("out.npz") as written:
        assert {name: array.shape for name, array in written.items()} == {"file": (3,), "é": ()}


def test_run_on_random_numbers(model, answering, image, says):
    text = says("run", model, "--random", "N=3")
    assert re.match(r"logits  float32\[3, 5\]  min -?\d.*\nloss    float32\[\]  -?\d", text)
    assert "float32[4, 5]" in says("run", answering, "--random")
    # one input is given and tells N; the other is random
    assert "float32[2, 5]" in says("run", model, "--input", "image=image.npy", "--random")


def test_run_of_one_output_needs_no_more_inputs(model, image, says):
    text = says("run", model, "--input", "image=image.npy", "--outputs", "logits")
    assert [line.split()[0] for line in text.splitlines()] == ["logits"]


def test_run_leaves_the_file_alone(model, says):
    before = Path(model).read_bytes()
    says("run", model, "--random")
    assert Path(model).read_bytes() == before


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((0, 3), "float32"), "float32[0, 3]  empty"),
        (np.array(True), "bool[]  1"),
        (np.array([True, False]), "bool[2]  min 0  mean 0.5  max 1  first 1 0"),
        (np.array([7]), "int64[1]  7"),
        (np.array([1.0, np.nan]), "float64[2]  min nan  mean nan  max nan  first 1 nan"),
        (np.array([np.inf, -np.inf], "float16"), "float16[2]  min -inf  mean nan  max inf  first inf -inf"),
        (np.full(6, 60000, "float16"), "float16[6]  min 60000  mean 60000  max 60000  first" + " 60000" * 5 + " ..."),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_numbers_of_an_output(array, text):
    assert command._numbers(array) == text


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "'net' also needs image: float32[N, 2, 6, 6]: give name=file.npy, or --random"),
        (["--input", "image=none.npy"], "there is no file none.npy"),
        (["--input", "image=."], ". is a folder"),
        (["--input", "picture=image.npy"], "an input is name=file.npy, of image, or file.npz; not picture=image.npy"),
        (["--input", "image.npy"], "an input is name=file.npy"),
        (["--input", "none.npz"], "there is no file none.npz"),
        (["--input", "image=text.npy"], "text.npy is not a whole .npy or .npz file"),
        (["--input", "image=empty.npy"], "empty.npy is not a whole .npy or .npz file"),
        (["--input", "image=short.npy"], "short.npy is not a whole .npy or .npz file"),
        (["--input", "short.npz"], "short.npz is not a whole .npy or .npz file"),
        (["--input", "image=objects.npy"], "file of numbers: it is another, or one of objects, whose reading"),
        (["--input", "two.npz"], "net has no input 'other'; it has image"),
        (["--input", "image=two.npz"], "two.npz holds 2 arrays, image, other"),
        (["--input", "image=image.npy", "--input", "one.npz"], "the input 'image' is given twice"),
        (["--input", "image=wide.npy"], "input 'image' is float32[N, 2, 6, 6]; got shape (2, 2, 6, 7)"),
        (["--random", "M=3"], "net has no size 'M'; it has N"),
        (["--random", "--outputs", "loss"], "there is no output 'loss'"),
        (["--random", "-o", "out.txt"], "outputs are written to a .npz file, not out.txt"),
        (["--random", "--backend", "abacus"], "there is no backend 'abacus'"),
        (["--random", "--import", "nowhere"], "cannot import nowhere: No module named 'nowhere'"),
        (["--random", "--import", "unfinished"], "cannot import unfinished: "),
        (["--random", "N=99999999999999"], "this needs more memory than there is: "),
    ],
)
def test_run_refuses(answering, image, refuses, given, why):
    np.savez("one.npz", image=image)
    np.savez("two.npz", image=image, other=image)
    np.save("wide.npy", np.zeros((2, 2, 6, 7)))
    np.save("objects.npy", np.array([None, {}], dtype=object))
    Path("text.npy").write_text("1 2 3")
    Path("empty.npy").touch()
    Path("unfinished.py").write_text("def (")
    for name, whole in (("short.npy", "image.npy"), ("short.npz", "one.npz")):
        Path(name).write_bytes(Path(whole).read_bytes()[:-50])
    assert why in refuses("run", answering, *given)
    assert not Path("out.txt").exists()


def test_a_damaged_archive_is_refused_at_every_place(answering, image, refuses):
    np.savez("one.npz", image=image)
    whole = Path("one.npz").read_bytes()
    for end in range(0, len(whole), 50):
        Path("one.npz").write_bytes(whole[:end])
        assert "one.npz is not a whole .npy or .npz file" in refuses("run", answering, "--input", "one.npz")
    for place in range(0, len(whole), 25):
        Path("one.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        # 0: in what nobody reads, such as the time of the file
        assert command.main(["run", answering, "--input", "one.npz"]) in (0, 1)


def test_run_and_doctor_need_a_state(refuses):
    mg.save("net.safetensors", network())
    assert "holds a graph without its state" in refuses("run", "net.safetensors", "--random")
    assert "holds a graph without its state" in refuses("doctor", "net.safetensors")


def test_doctor_examines_batch_norms(model, answering, image, says, refuses):
    state = network().init(seed=1)
    for file, graph in ((model, network()), (answering, mg.inference(network(), ["logits"]))):
        expected = mg.doctor(graph, state, {"image": image})
        assert says("doctor", file, "--input", "image=image.npy") == f"{expected}\n"
    assert "image" in refuses("doctor", model)


def test_ops_of_ones_own_are_imported_first(refuses, says):
    Path("my_ops.py").write_text(
        "from minigraph.core.op import Op\nhalf = Op('half_of', lambda x, /: x, lambda x: x / 2)\n"
    )
    half = mg.Op("half_of", lambda x, /: x, lambda x: x / 2)
    net = mg.Builder("net")
    mg.save("net.safetensors", net.build(y=half(net.input("x", (2,)))), mg.State())
    del mg.OPS["half_of"]
    assert "op 'half_of' is not known: import the module that defines it" in refuses("text", "net.safetensors")
    try:
        assert "half_of(x)" in says("text", "net.safetensors", "--import", "my_ops")
    finally:
        del mg.OPS["half_of"]


def test_profile_prints_tables(model, image, says):
    text = says("profile", model, "--batch", "6", "--repeats", "1", "--rows", "3")
    assert text.startswith("profile of 'net' on numpy, N = 6: of each row one run\n")
    assert len(re.findall(r"^ *[\d.]+ +[\d.]+% ", text, re.MULTILINE)) == 2 * (3 + 1)
    assert ", N = 5:" in says("profile", model, "N=5", "--repeats", "1")
    given = says("profile", model, "--input", "image=image.npy", "--repeats", "1")
    assert ", N = 2:" in given
    assert ", N = 32:" in says("profile", model, "--repeats", "1")


def test_profile_of_a_training_step(folder, says, refuses):
    step = mg.training_step(network(), "loss", mg.optim.SGD(0.1))
    mg.save("step.safetensors", step, network().init())
    text = says("profile", "step.safetensors", "--training", "--outputs", "loss", "--repeats", "1")
    assert re.search(r"backward +conv1", text)
    assert re.search(r"update +conv1.weight", text)
    assert "update" not in says("profile", "step.safetensors", "--repeats", "1")


def test_profile_draws_the_times(model, says):
    assert says("profile", model, "-o", "times.dot", "--repeats", "1").endswith("wrote times.dot\n")
    assert "a run; the darker, the more of it" in Path("times.dot").read_text()


@pytest.mark.compiler
def test_plan_prints_and_draws(model, says):
    text = says("plan", model, "--batch", "6")
    assert text.startswith("plan of 'net': ")
    assert "N <= 6" in text
    assert says("plan", model, "N=6", "-o", "plan.dot") == "wrote plan.dot\n"
    assert "conv_direct" in Path("plan.dot").read_text()


def test_profile_refuses(answering, refuses):
    assert refuses("profile", answering, "N=4", "--batch", "3") == "the batch has two sizes, 3 and N=4\n"
    assert refuses("profile", answering, "M=4") == "net has no size 'M'; it has N\n"
    assert "'net' has no updates, it is no training step" in refuses("profile", answering, "--training")
    assert "there is no backend 'cuda'" in refuses("profile", answering, "--backend", "cuda")
    net = mg.Builder("fixed")
    mg.save("fixed.safetensors", net.build(y=mg.exp(net.input("x", (3,)))), mg.State())
    assert refuses("profile", "fixed.safetensors", "--batch", "3") == (
        "'fixed' has no size that is that of a batch: leave out --batch\n"
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_that_answers_is_made_in_a_precision(model, precision, image, says):
    """It gives other numbers, which are near."""
    found = {}
    for name, options in (("own", ()), ("other", ("--precision", precision))):
        assert "for inference" in says("optimize", model, "-o", f"{name}.safetensors", *options)
        graph, state = mg.load(f"{name}.safetensors")
        assert state is not None
        found[name] = mg.compile(graph.prune(["logits"]), state, "numpy")(image=np.load("image.npy"))["logits"]
    assert found["own"].dtype == found["other"].dtype
    assert 0 < np.abs(found["other"] - found["own"]).max() < 0.05
    assert "profile of 'net'" in says("profile", model, "--precision", precision, "--repeats", "1")


def test_precision_refuses(model, refuses):
    step = mg.training_step(network(), "loss", mg.optim.SGD(0.1))
    mg.save("step.safetensors", step, network().init())
    for name, *options in (["profile"], ["explain"], ["optimize", "-o", "out.safetensors"]):
        why = refuses(name, "step.safetensors", *options, "--training", "--precision", "float16")
        assert "is a training step, whose precision was chosen when it was made: leave out --precision" in why
    assert "invalid choice: 'half'" in refuses("profile", model, "--precision", "half", status=2)


# improving


@pytest.fixture
def passes(folder):
    Path("my_passes.py").write_text(PASSES)


def test_explain_says_what_fired_and_why_others_did_not(answering, passes, says):
    text = says("explain", answering, "--pipeline", "my_passes:MINE")
    lines = text.splitlines()
    # conv, batch norm, two relus, reshape, matmul, add, tanh; a weight's transpose is computed once
    assert lines[0] == "net: a run computes 8 nodes, 7 after 2 passes"
    assert "once: Of two relus, one is enough." in lines
    assert any(re.fullmatch(r"  did: relu-twice at relu2: relu2.* -> \S+", line) for line in lines)
    assert any(re.fullmatch(r"  not: never at \S+: \S+ is not small", line) for line in lines)
    assert lines[-2:] == ["keep: Keeps the graph.", "  nothing to do"]


def test_explain_of_one_node(answering, passes, says):
    text = says("explain", answering, "relu2", "--pipeline", "my_passes:MINE")
    assert "did: relu-twice at relu2" in text
    assert "keep" not in text
    assert "no pass has anything to do with conv1" in says("explain", answering, "conv1", "--pass", "my_passes:once")
    assert "no pass has" in says("explain", answering, "conv1.conv", "--pass", "my_passes:once")


def test_explain_knows_what_came_from_a_node(answering, passes, says):
    Path("more_passes.py").write_text(
        "from my_passes import *\n"
        "into = Pass('into', '', (Rule('into-relu', 'tanh(x) = relu(x)', tanh(x), lambda match, x: relu(x)),))\n"
    )
    text = says("explain", answering, "tanh", "--pass", "more_passes:into", "--pass", "my_passes:once")
    assert re.search(r"\n  not: never at \S+: \S+ is not small\n", text + "\n")
    assert "relu2" not in text


def test_explain_draws_what_happened(answering, passes, says):
    text = says("explain", answering, "--pass", "my_passes:once", "--draw", "net.dot")
    assert text.endswith("wrote net.dot\n")
    assert "relu2 is not small" in Path("net.dot").read_text()


def test_explain_gives_no_reasons_of_nodes_that_are_gone(answering, passes, says):
    text = says("explain", answering, "--pass", "my_passes:once", "--pass", "my_passes:no_relus")
    assert "did: relu-away" in text
    assert "not:" not in text


def test_explain_refuses_a_node_that_is_not_there(answering, passes, refuses):
    why = refuses("explain", answering, "conv", "--pass", "my_passes:once")
    assert "no node is called 'conv'; there are " in why
    assert "conv1" in why


def test_optimize_writes_the_graph_and_says_what_passes_did(answering, passes, image, says):
    text = says("optimize", answering, "-o", "fast.safetensors", "--pass", "my_passes:once", "--pass", "my_passes:keep")
    lines = text.splitlines()
    assert lines[0].split() == ["pass", "fired", "nodes", "of", "a", "run", "ms"]
    assert lines[1].split()[:5] == ["once", "1", "8", "->", "7"]
    assert lines[2].split()[:5] == ["keep", "0", "7", "->", "7"]
    before, _ = mg.load(answering)
    graph, _ = mg.load("fast.safetensors")
    assert lines[3:] == [f"wrote fast.safetensors: {len(before.nodes) - 1} nodes, 7 states"]
    assert len(graph.nodes) == len(before.nodes) - 1
    np.testing.assert_array_equal(answer("fast.safetensors", image), expected(image))


def test_optimize_does_not_write_over_what_it_reads(answering, refuses):
    before = Path(answering).read_bytes()
    assert "is the graph before" in refuses("optimize", answering, "-o", answering)
    assert Path(answering).read_bytes() == before


@pytest.mark.parametrize("left_out", [["once", "keep"], ["once", "--without", "keep"], ["relu-twice"]])
def test_optimize_leaves_out_passes_and_rules(answering, passes, says, left_out):
    says("optimize", answering, "-o", "f.safetensors", "--pipeline", "my_passes:MINE", "--without", *left_out)
    assert str(mg.load("f.safetensors")[0]) == str(mg.load(answering)[0])


def test_a_model_is_first_made_the_graph_that_answers(model, says):
    text = says("optimize", model, "-o", "fast.safetensors")
    assert text.startswith("for inference: running statistics, no dropout, no updates")
    graph, _ = mg.load("fast.safetensors")
    assert not graph.updates
    assert "batch_norm" not in {node.op.name for node in graph.nodes}


def test_optimize_for_training_keeps_the_updates(model, says):
    text = says("optimize", model, "-o", "fast.safetensors", "--training")
    assert "for inference" not in text
    assert {value.name for value in mg.load("fast.safetensors")[0].updates} == {"bn1.running_mean", "bn1.running_var"}


def test_explain_for_training_says_which_biases_a_batch_norm_takes_off(folder, says):
    net = mg.Builder("net")
    h = layers.batch_norm(layers.conv2d(net.input("image", ("N", 2, 6, 6)), 3, 3))
    h = layers.batch_norm(mg.relu(layers.conv2d(h, 3, 3)))
    model = net.build(loss=mg.mean(h * h))
    mg.save("model.safetensors", model, model.init(seed=1))
    text = says("explain", "model.safetensors", "--training")
    assert "did: drop-bias at bn1.batch_norm" in text
    assert "conv2.add keeps its bias: no shift passes through relu" in text
    assert "did: drop-bias" not in says("explain", "model.safetensors", "--training", "--without", "drop-bias")
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1))
    mg.save("step.safetensors", step, step.init(seed=1))
    assert "drop-bias" not in says("explain", "step.safetensors", "--training")


def test_the_pipeline_for_inference_folds_the_batch_norm(answering, image, says):
    assert "bn1" in says("explain", answering, "bn1")
    says("optimize", answering, "-o", "fast.safetensors", "--verify")
    graph, _ = mg.load("fast.safetensors")
    assert "batch_norm_inference" not in {node.op.name for node in graph.nodes}
    np.testing.assert_allclose(answer("fast.safetensors", image), expected(image), rtol=1e-5, atol=1e-6)


def test_optimize_writes_a_page(answering, passes, says, monkeypatch):
    monkeypatch.setattr("minigraph.tools.page.can_render", lambda format: False)
    text = says("optimize", answering, "-o", "fast.safetensors", "--pass", "my_passes:once", "--page", "passes.html")
    assert "\nwrote passes.html\n" in text
    assert "Of two relus, one is enough." in Path("passes.html").read_text(encoding="utf-8")


def test_optimize_writes_nothing_that_is_refuted(answering, passes, refuses, capsys):
    why = refuses("optimize", answering, "-o", "fast.safetensors", "--pass", "my_passes:wrong", "--verify")
    assert "does not compute the same as the one before, and is not written" in why
    assert not Path("fast.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--pass", "nowhere:p"], "cannot import nowhere"),
        (["--pass", "my_passes:none"], "my_passes has no 'none'"),
        (["--pass", "my_passes:NUMBER"], "my_passes:NUMBER is no pass"),
        (["--pass", "my_passes:fails"], "the pass fails gives a Graph, not a NoneType"),
        (["--pipeline", "my_passes:once"], "my_passes:once is no pipeline"),
        (
            ["--pipeline", "my_passes:MINE", "--without", "twice"],
            "there is no pass or rule 'twice'; there are once, keep",
        ),
        (["--training"], "'net' has no updates, it is no training step"),
    ],
)
def test_optimize_refuses(answering, passes, refuses, options, why):
    assert why in refuses("optimize", answering, "-o", "fast.safetensors", *options)
    assert why in refuses("explain", answering, *options)
    assert not Path("fast.safetensors").exists()


def test_optimize_refuses_another_ending(answering, refuses):
    said = refuses("optimize", answering, "-o", "fast.txt")
    assert said == "a graph is written to a .safetensors or a .onnx file, not to fast.txt\n"


# what cannot be read


@pytest.mark.parametrize(
    "arguments",
    [
        *([name] for name in ("draw", "summary", "text", "explain", "run", "plan", "profile", "check", "doctor")),
        ["optimize", "-o", "x.safetensors"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_refuses_a_bad_file(arguments, refuses):
    name, *rest = arguments
    Path("state.safetensors").write_bytes(write_arrays({"w": np.zeros(2)}))
    Path("text.safetensors").write_text("no graph")
    assert "there is no file none.safetensors" in refuses(name, "none.safetensors", *rest)
    assert ". is a folder" in refuses(name, ".", *rest)
    assert "not a whole safetensors file" in refuses(name, "text.safetensors", *rest)
    assert "holds no graph, only arrays" in refuses(name, "state.safetensors", *rest)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "COMMAND"),
        (["foo"], "foo"),
        (["summary"], "the following arguments are required: FILE;"),
        (["summary", "f", "N"], "a size is written like N=64, not 'N'"),
        (["summary", "f", "N=-1"], "a size is written like N=64"),
        (["run", "f", "--random", "N=x"], "a size is written like N=64"),
        (["optimize", "f"], "-o"),
        (["draw", "f", "--timeout", "x"], "a time is a number of seconds above 0, not 'x'"),
        (["draw", "f", "--timeout", "-1"], "a time is a number of seconds above 0, not '-1'"),
        (["explain", "f", "--pass", "fold"], "it is written like my_passes:fold, not 'fold'"),
        (["explain", "f", "--pass", "a:b", "--pipeline", "c:d"], "not allowed with"),
        (["run", "f", "--inputs"], "--inputs"),
        (["profile", "f", "--batch", "0"], "it is a number from 1 on, not '0'"),
        (["profile", "f", "--repeats", "x"], "it is a number from 1 on, not 'x'"),
    ],
)
def test_a_command_line_that_cannot_be_read(arguments, why, refuses):
    error = refuses(*arguments, status=2)
    assert why in error
    assert error.endswith("--help` says more\n")
    assert error.count("\n") == 1


def test_a_file_that_may_not_be_written(answering, refuses):
    Path("file").touch()
    why = "file/out.npz cannot be written: file is a file, not a folder\n"
    assert refuses("run", answering, "--random", "-o", "file/out.npz") == why
    Path("out.npz").mkdir()
    assert refuses("run", answering, "--random", "-o", "out.npz") == "out.npz is a folder\n"


@pytest.mark.parametrize(
    "name", ["", "draw", "summary", "text", "explain", "optimize", "run", "plan", "profile", "check", "doctor"]
)
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([*filter(None, [name]), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert re.search(rf"^  minigraph {name or 'summary'} +out/digits/digits.safetensors", text, re.MULTILINE)


def test_the_examples_of_the_help_run(folder, capsys, says):
    """Each of them is a command that does its work, on a file in that place."""
    mg.save(command.DEMO, mg.inference(network(), ["logits"]), network().init())
    np.save("image.npy", np.zeros((2, 2, 6, 6), "float32"))
    shown = []
    for name in ("", "draw", "summary", "text", "explain", "optimize", "run", "profile", "check", "doctor"):
        with pytest.raises(SystemExit):
            command.main([*filter(None, [name]), "--help"])
        shown += re.findall(r"^  minigraph (\w+ +out/.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(shown) == 15
    for line in shown:
        words = line.partition(" >")[0].replace("'", "").replace(".svg", ".dot").split()
        says(*words)


def test_the_readme_shows_commands_that_run(capsys, says):
    mg.save("digits.safetensors", mg.inference(network(), ["logits"]), network().init())
    lines = re.findall(
        r"^\$ minigraph (.*?)(?: +#.*)?$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(lines) >= 6
    for line in lines:
        says(*line.replace(".svg", ".dot").split())


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"minigraph {mg.__version__}\n"


# as a program


def program(*arguments, **options):
    environment = {**os.environ, "PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "minigraph", *arguments], env=environment, capture_output=True, text=True, **options
    )


def test_as_a_program(answering):
    done = program("check", answering)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("fine\n")
    done = program("check", "none.safetensors")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "minigraph: there is no file none.safetensors\n"
    assert program().returncode == 2


def test_nobody_reads_on(answering):
    """As with `minigraph text net.safetensors | head -1`, whose end may come before ours."""
    child = subprocess.Popen(
        [sys.executable, "-m", "minigraph", "text", answering], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    _, error = child.communicate(timeout=60)
    assert error == b""
    assert child.returncode == 141


def test_nobody_reads_the_help():
    child = subprocess.Popen(
        [sys.executable, "-m", "minigraph", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    _, error = child.communicate(timeout=60)
    assert error == b""


def test_a_terminal_that_cannot_show_a_name():
    mg.save("net.safetensors", mg.Builder("é中").build())
    done = subprocess.run(
        [sys.executable, "-m", "minigraph", "text", "net.safetensors"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 'graph "\\xe9\\u4e2d"\n', "")


def test_ctrl_c_is_quiet(answering, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "load", interrupted)
    assert command.main(["check", answering]) == 130
    assert capsys.readouterr().err == ""


def test_the_entry_point_is_the_program():
    from importlib.metadata import entry_points

    text = (ROOT / "pyproject.toml").read_text()
    assert 'minigraph = "minigraph.tools.command:main"' in text
    for point in entry_points(group="console_scripts", name="minigraph"):
        assert point.load() is command.main


def test_each_command_loads_only_what_it_needs(answering):
    code = (
        "import sys; from minigraph.tools.command import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "check", answering], capture_output=True, text=True, check=True)
    assert not {"networkx", "graphviz", "tqdm", "matplotlib", "onnx"} & set(done.stderr.split())


# models of ONNX


@pytest.fixture
def onnx_file(folder):
    """A model of ONNX of the network that answers."""
    models.save(mg.inference(network(), ["logits"]), network().init(seed=1), "net.onnx")
    return "net.onnx"


def test_every_command_takes_a_model_of_onnx(onnx_file, says):
    np.save("image.npy", np.ones((3, 2, 6, 6), "f4"))
    assert "= tanh(linear1.add" in says("text", onnx_file)
    assert "conv1" in says("summary", onnx_file, "N=64")
    assert "wrote net.svg" in says("draw", onnx_file, "-o", "net.svg")
    assert "batch_norm" in says("explain", onnx_file)
    assert "logits" in says("run", onnx_file, "--input", "image=image.npy", "--backend", "numpy")
    assert "a run takes" in says("profile", onnx_file, "--batch", 4, "--backend", "numpy", "--repeats", 1)
    assert says("check", onnx_file).endswith("fine\n")


def test_optimize_writes_a_model_of_onnx_that_computes_the_same(onnx_file, says):
    said = says("optimize", onnx_file, "-o", "fast.onnx", "--explain", "--verify")
    assert "fold-before: " in said
    assert "the same function" in said
    assert said.splitlines()[-1].startswith("wrote fast.onnx: ")
    operators = [node.op_type for node in onnx.load("fast.onnx").graph.node]
    assert operators.count("Conv") == 1
    assert "BatchNormalization" not in operators
    np.save("image.npy", np.ones((3, 2, 6, 6), "f4"))
    for file in (onnx_file, "fast.onnx"):
        says("run", file, "--input", "image=image.npy", "-o", f"{file}.npz", "--backend", "numpy")
    one, other = (np.load(f"{file}.npz")["logits"] for file in (onnx_file, "fast.onnx"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_one_kind_of_file_becomes_the_other(answering, says):
    says("optimize", answering, "-o", "fast.onnx")
    assert "the same function" in says("check", answering, "fast.onnx")
    says("optimize", "fast.onnx", "-o", "back.safetensors")
    assert "the same function" in says("check", "back.safetensors", answering)


def test_check_says_of_two_files_whether_they_do_the_same(onnx_file, answering, says, refuses):
    assert "the same function" in says("check", answering, onnx_file)
    other = network().init(seed=1)
    other["conv1.weight"] = other["conv1.weight"] * np.float32(1.01)
    models.save(mg.inference(network(), ["logits"]), other, "other.onnx")
    said = refuses("check", onnx_file, "other.onnx")
    assert "net.onnx and other.onnx hold different functions: 'logits' differs by" in said
    models.save(mg.inference(network()), other, "more.onnx")
    assert "the input 'label' is new after" in refuses("check", onnx_file, "more.onnx")


def test_check_compares_steps_of_training_with_the_same_numbers(folder, says, refuses):
    step = mg.training_step(network(), "loss", mg.optim.SGD(0.1))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mg.save(f"{name}.safetensors", step, step.init(seed))
    assert "the same function" in says("check", "a.safetensors", "b.safetensors")
    said = refuses("check", "a.safetensors", "c.safetensors")
    assert "conv1.weight" in said
    assert "is state that moves, and has other numbers in the two files" in said


def test_values_of_inputs_are_fixed_where_a_model_needs_them(folder, says, refuses):
    x = onnx.helper.make_tensor_value_info("x", 1, ["N", 6])
    shape = onnx.helper.make_tensor_value_info("shape", 7, [2])
    y = onnx.helper.make_tensor_value_info("y", 1, None)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", [x, shape], [y])
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), "g.onnx")
    assert "shape" in refuses("text", "g.onnx")
    assert "float32[2*N, 3]" in says("text", "g.onnx", "--value", "shape=-1,3")
    says("optimize", "g.onnx", "--value", "shape=-1,3", "-o", "fixed.onnx")
    assert "the same function" in says("check", "g.onnx", "fixed.onnx", "--value", "shape=-1,3")
    assert "the same function" in says("check", "g.onnx", "g.onnx", "--value", "shape=-1,3")
    assert "a value is written like" in refuses("text", "g.onnx", "--value", "shape", status=2)
    assert "a value is written like" in refuses("text", "g.onnx", "--value", "shape=a,b", status=2)


def test_what_is_no_model_is_refused(folder, answering, refuses):
    Path("bad.onnx").write_bytes(b"not a model")
    assert "bad.onnx" in refuses("text", "bad.onnx")
    assert "there is no file none.onnx" in refuses("text", "none.onnx")
    assert "is a saved graph, of which no values can be fixed" in refuses("text", answering, "--value", "x=1")


def test_what_cannot_be_written_for_onnx_leaves_no_file(folder, refuses):
    net = mg.Builder("noisy")
    mg.save("noisy.safetensors", net.build(y=layers.dropout(net.input("x", ("N", 3)), 0.5)), mg.State())
    said = refuses("optimize", "noisy.safetensors", "--training", "-o", "noisy.onnx")
    assert "dropout: ONNX has nothing like it (dropout1.dropout)" in said
    assert not Path("noisy.onnx").exists()


def test_without_the_package_onnx_the_sentence_says_what_to_install(answering, refuses, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("minigraph.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "need the package onnx: type `pip install 'minigraph[onnx]'`" in refuses(
        "optimize", answering, "-o", "fast.onnx"
    )
