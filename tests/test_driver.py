"""From a model to programs: training steps, inference, and what a program promises."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import GraphError, layers


def classifier(norm=True, dtype="float32"):
    net = mg.Builder("classifier")
    image, label = net.input("image", ("N", 4), dtype), net.input("label", ("N",), "int64")
    h = layers.linear(image, 5, name="body")
    if norm:
        h = layers.batch_norm(h)
    logits = layers.linear(mg.tanh(h), 3, name="head")
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def batch(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return {"image": rng.normal(size=(n, 4)), "label": rng.integers(0, 3, n)}


def same(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


# training_step


def test_a_training_step_learns():
    model = classifier()
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(0.02)), state)
    losses = [train(**batch())["loss"] for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]


def test_a_training_step_leaves_the_model_and_its_names():
    model = classifier()
    text = str(model)
    step = mg.training_step(model, "loss", mg.optim.Adam(0.1))
    assert str(model) == text
    assert step.check() is step
    assert [v.name for v in step.inputs] == [v.name for v in model.inputs]
    assert list(step.outputs) == list(model.outputs)
    assert set(model.variables) <= set(step.variables)
    still = {"body.bias"}  # the batch norm takes off again what it adds
    assert {old.name for old in step.updates} == {v.name for v in step.state} - still  # in Adam all others move


def test_a_step_moves_by_rate_times_gradient():
    model = classifier(dtype="float64")
    net = mg.Builder.extending(model)
    wrt = list(net.parameters)
    gradients = mg.compile(
        net.build({f"d.{p.name}": g for p, g in zip(wrt, mg.gradient(net.tensor("loss"), wrt))}), model.init(seed=0)
    )(**batch())
    state = model.init(seed=0)
    mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.5)), state)(**batch())
    for name, gradient in gradients.items():
        name = name.removeprefix("d.")
        np.testing.assert_allclose(state[name], model.init(seed=0)[name] - 0.5 * gradient, rtol=1e-12, atol=1e-14)


def test_outputs_of_a_step_can_be_chosen():
    model = classifier()
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1), outputs=["loss"])
    assert list(step.outputs) == ["loss"]
    assert len(mg.training_step(model, "loss", mg.optim.SGD(0.1), outputs=[]).outputs) == 0
    with pytest.raises(GraphError, match="nothing"):
        mg.training_step(model, "loss", mg.optim.SGD(0.1), outputs=["nothing"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "los"}, "no output 'los' to be made smaller; there are logits, loss"),
        ({"loss": "logits"}, "add them up with sum or mean"),
        ({"accumulate": 0}, "accumulate is a number of 1 or more"),
        ({"accumulate": 1.5}, "accumulate is"),
        ({"clip_norm": 0.0}, "limit is above 0"),
        ({"clip_norm": -1}, "above 0"),
        ({"trainable": "nobody"}, "no parameter is called like 'nobody'; there are body.weight, body.bias"),
        ({"trainable": "!nobody"}, "no parameter is called like '!nobody'"),
        ({"trainable": []}, "nothing is trainable"),
        ({"trainable": ["head.*", "!head.*"]}, "nothing is trainable"),
        ({"trainable": "bn1.running_mean"}, "no parameter"),
    ],
)
def test_wrong_arguments_of_a_step_are_refused(arguments, message):
    with pytest.raises(GraphError, match=message.replace("(", r"\(")):
        mg.training_step(classifier(), **{"loss": "loss", "optimizer": mg.optim.SGD(0.1), **arguments})


def test_a_program_is_no_model():
    model = classifier()
    program = mg.compile(model, model.init())
    with pytest.raises(GraphError, match="training_step needs the model, a Graph, not a Program"):
        mg.training_step(program, "loss", mg.optim.SGD(0.1))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="inference needs the model, a Graph, not a Program"):
        mg.inference(program)  # type: ignore[arg-type]


def test_a_parameter_that_the_loss_does_not_reach_is_named():
    net = mg.Builder()
    x = net.input("x", ("N", 2))
    net.parameter("unused", (3,), mg.init.zeros)
    model = net.build(loss=mg.mean(layers.linear(x, 2)))
    with pytest.raises(GraphError, match="does not depend on unused"):
        mg.training_step(model, "loss", mg.optim.SGD(0.1))
    assert mg.training_step(model, "loss", mg.optim.SGD(0.1), trainable="!unused")


def test_an_integer_loss_is_refused():
    net = mg.Builder()
    x = net.input("x", ("N", 2))
    layers.linear(x, 2)
    model = net.build(loss=mg.sum(mg.argmax(x)))
    with pytest.raises(GraphError, match="not a float"):
        mg.training_step(model, "loss", mg.optim.SGD(0.1))


NAMES = ["body.weight", "body.bias", "bn1.gamma", "bn1.beta", "head.weight", "head.bias"]
EFFECTIVE = [name for name in NAMES if name != "body.bias"]  # the batch norm takes off again what it adds


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        ("*", EFFECTIVE),
        ("head.*", ["head.weight", "head.bias"]),
        ("!head.*", EFFECTIVE[:3]),
        (["*.bias", "bn1.*"], ["bn1.gamma", "bn1.beta", "head.bias"]),
        (["*", "!*.bias", "head.bias"], ["body.weight", "bn1.gamma", "bn1.beta", "head.weight", "head.bias"]),
        (["!*.weight", "!bn?.*"], ["head.bias"]),
        (("head.weight",), ["head.weight"]),
        (["head.*", "!head.bias"], ["head.weight"]),
    ],
)
def test_patterns_choose_what_is_trained(patterns, trained):
    model = classifier()
    step = mg.training_step(model, "loss", mg.optim.Adam(0.1), trainable=patterns)
    assert [v.name for v in step.state if v.kind == "slot"] == [
        f"optimizer.{name}.{slot}" for name in trained for slot in "mv"
    ]
    state = model.init(seed=0)
    state["bn1.beta"] = np.full(5, 0.3)
    before = state.copy()
    mg.compile(step, state)(**batch())
    assert [name for name in NAMES if not np.array_equal(state[name], before[name])] == trained
    assert not np.array_equal(state["bn1.running_mean"], before["bn1.running_mean"])  # statistics move all the same


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_gradients_are_clipped_by_their_joint_norm(limit):
    model = classifier(dtype="float64")
    moved = {}
    for clip in (None, limit):
        state = model.init(seed=0)
        before = state.copy()
        mg.compile(mg.training_step(model, "loss", mg.optim.SGD(1.0), clip_norm=clip), state)(**batch())
        moved[clip] = np.concatenate([(before[name] - state[name]).ravel() for name in NAMES])
    norm = np.linalg.norm(moved[None])
    # the norm is taken in float32
    np.testing.assert_allclose(moved[limit], moved[None] * min(1, limit / norm), rtol=1e-5, atol=1e-12)


def test_nothing_is_clipped_where_all_gradients_are_zero():
    net = mg.Builder("net")
    x = net.input("x", ("N", 3))
    model = net.build(loss=mg.mean(x * net.parameter("w", (3,), mg.init.ones)))
    step = mg.training_step(model, "loss", mg.optim.SGD(1.0), clip_norm=1.0)
    program = mg.compile(step, model.init(0), backend="numpy")
    assert program.first_not_finite(x=np.zeros((2, 3), "float32")) is None


def test_clipping_shows_a_nan():
    model = classifier(norm=False)
    state = model.init(seed=0)
    inputs = batch()
    inputs["image"][0, 0] = np.nan
    mg.compile(mg.training_step(model, "loss", mg.optim.SGD(1.0), clip_norm=1.0), state)(**inputs)
    assert np.isnan(state["head.bias"]).all()


OPTIMIZERS = [
    mg.optim.SGD(0.1),
    mg.optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    mg.optim.Adam(0.1),
    mg.optim.AdamW(mg.optim.cosine(0.1, 4)),
    mg.optim.RMSprop(0.1, momentum=0.5),
]


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_is_one_big_batch(optimizer, parts, clip):
    model = classifier(norm=False, dtype="float64")
    big, small = model.init(seed=0), model.init(seed=0)
    whole = mg.compile(mg.training_step(model, "loss", optimizer, clip_norm=clip), big)
    part = mg.compile(mg.training_step(model, "loss", optimizer, clip_norm=clip, accumulate=parts), small)
    for step in range(3):
        inputs = batch(6, step)
        whole(**inputs)
        for rows in np.split(np.arange(6), parts):
            before = small.copy()
            part(**{name: array[rows] for name, array in inputs.items()})
            if rows[-1] != 5:  # in between nothing of the model or the optimizer moves
                assert all(np.array_equal(small[name], before[name]) for name in big)
        for name in big:
            # 1/3 is not a float64, Adam divides by roots of small squares, and the norm of clipping is a float32
            np.testing.assert_allclose(small[name], big[name], rtol=1e-5 if clip else 1e-9, atol=1e-12, err_msg=name)


def test_running_statistics_move_with_each_part():
    model = classifier()
    state = model.init(seed=0)
    part = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.1), accumulate=2), state)
    before = state.copy()
    part(**batch())
    assert not np.array_equal(state["bn1.running_mean"], before["bn1.running_mean"])
    assert np.array_equal(state["body.weight"], before["body.weight"])


# inference


def test_inference_uses_running_statistics_and_moves_nothing():
    model = classifier()
    state = model.init(seed=0)
    state["bn1.running_mean"], state["bn1.running_var"] = np.arange(5), np.arange(1, 6)
    graph = mg.inference(model, outputs=["logits"])
    assert [v.name for v in graph.inputs] == ["image"]
    assert not graph.updates
    infer = mg.compile(graph, state)
    before = state.copy()
    x = batch()["image"].astype("float32")
    got = infer(image=x)["logits"]
    h = (x @ state["body.weight"].T + state["body.bias"] - np.arange(5)) / np.sqrt(np.arange(1, 6) + 1e-5)
    # sums of 5 and 4 float32 numbers of a size around 1
    np.testing.assert_allclose(got, np.tanh(h) @ state["head.weight"].T + state["head.bias"], rtol=1e-5, atol=1e-6)
    assert same(state, before)
    np.testing.assert_allclose(
        infer(image=x[:1])["logits"], got[:1], rtol=1e-5, atol=1e-6
    )  # one image does not know of others


def test_inference_lets_everything_through_dropout():
    net = mg.Builder()
    x = net.input("x", ("N",))
    model = net.build(y=layers.dropout(x, 0.5))
    infer = mg.compile(mg.inference(model), model.init())
    assert infer(x=[1, 2])["y"].tolist() == [1, 2]
    assert not infer.graph.nodes
    assert not infer.graph.state


def test_the_loss_of_evaluation_leaves_the_statistics():
    model = classifier()
    state = model.init(seed=0)
    before = state.copy()
    evaluate = mg.compile(mg.inference(model, outputs=["loss"]), state)
    assert np.isfinite(evaluate(**batch(1))["loss"])  # a batch of one is fine here
    assert same(state, before)


def test_training_and_inference_share_one_state():
    model = classifier()
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.5)), state)
    infer = mg.compile(mg.inference(model, ["logits"]), state)
    first = infer(image=batch()["image"])["logits"]
    train(**batch())
    assert not np.allclose(infer(image=batch()["image"])["logits"], first)


def test_a_batch_norm_that_is_not_tracked_stays():
    net = mg.Builder()
    x = net.input("x", ("N", 2))
    model = net.build(y=layers.batch_norm(x, track=False))
    infer = mg.compile(mg.inference(model), model.init())
    np.testing.assert_allclose(infer(x=[[0, 1], [2, 5]])["y"], [[-1, -1], [1, 1]], rtol=1e-5)


def test_inference_of_a_training_step_is_that_of_the_model():
    model = classifier()
    state = model.init(seed=0)
    step = mg.training_step(model, "loss", mg.optim.SGD(0.5))
    a, b = (mg.compile(mg.inference(g, ["logits"]), state)(image=batch()["image"])["logits"] for g in (model, step))
    assert np.array_equal(a, b)


# compile


def test_compile_creates_slots_counters_and_streams_and_lists_them():
    net = mg.Builder()
    x = net.input("x", ("N", 2))
    model = net.build(loss=mg.mean(layers.dropout(layers.linear(x, 2), 0.5)))
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))
    state = mg.State({name: model.init()[name] for name in ("linear1.weight", "linear1.bias")})
    train = mg.compile(step, state)
    assert set(train.created) == {
        "random.seed",
        "random.step",
        "optimizer.step",
        "optimizer.linear1.weight.velocity",
        "optimizer.linear1.bias.velocity",
    }
    assert all(name in train.report for name in train.created)
    assert set(train.created) <= set(state)
    assert mg.compile(step, state).created == ()
    assert state["optimizer.linear1.weight.velocity"].tolist() == [[0, 0], [0, 0]]


def test_missing_parameters_and_statistics_are_an_error_that_names_all():
    model = classifier()
    state = model.init()
    for name in ("body.weight", "bn1.running_var", "head.bias"):
        del state[name]
    state["more"] = np.zeros(1)  # does not matter
    before = state.copy()
    with pytest.raises(GraphError, match=r"lacks body.weight, bn1.running_var, head.bias"):
        mg.compile(mg.training_step(model, "loss", mg.optim.Adam(0.1)), state)
    assert same(state, before)  # slots are not created for nothing


def test_state_of_another_form_is_an_error_that_names_all():
    model = classifier()
    arrays = dict(model.init())
    arrays["body.weight"] = np.zeros((5, 3), "float32")
    arrays["head.bias"] = np.zeros(3)
    with pytest.raises(GraphError) as caught:
        mg.compile(model, mg.State(arrays))
    for part in (
        "body.weight is float32[5, 4], the state has float32[5, 3]",
        "head.bias is float32[3], the state has float64[3]",
    ):
        assert part in str(caught.value)


def test_an_unknown_backend_is_refused():
    with pytest.raises(GraphError, match="no backend 'tpu'; there are auto, cupy, c, numpy"):
        mg.compile(classifier(), classifier().init(), backend="tpu")
    assert mg.compile(classifier(), classifier().init()).backend in mg.compile(classifier(), classifier().init()).report


# a program: its inputs


@pytest.fixture
def program():
    model = classifier()
    return mg.compile(model, model.init(seed=0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"takes the inputs image, label; 'image' is missing; 'label' is missing"),
        ({"image": np.zeros((2, 4))}, r"'label' is missing"),
        ({**batch(), "lable": 1}, r"takes the inputs image, label; 'lable' is not one of them"),
        ({**batch(), "image": np.zeros((6, 5))}, r"input 'image' is float32\[N, 4\]; got shape \(6, 5\)"),
        ({**batch(), "image": np.zeros(4)}, r"'image' is float32\[N, 4\].* got shape \(4,\)"),
        ({**batch(), "label": np.zeros(5, int)}, r"input 'label' is int64\[N\] with N = 6; got shape \(5,\)"),
        ({**batch(), "label": np.zeros(6)}, r"input 'label' is int64\[N\]; got float64"),
        ({**batch(), "image": np.zeros((6, 4), complex)}, r"'image' is float32\[N, 4\]; got complex128"),
        ({**batch(), "image": [["a"] * 4] * 6}, r"'image' is float32\[N, 4\]; got"),
        ({**batch(), "image": None}, r"'image' is float32\[N, 4\]; got"),
        ({**batch(), "image": [[1], [2, 3]]}, r"'image' is float32\[N, 4\]; got what is no array"),
        ({**batch(), "label": 3}, r"'label' .*got shape \(\)"),
    ],
)
def test_wrong_inputs_are_refused_by_name(program, inputs, message):
    with pytest.raises(GraphError, match=message):
        program(**inputs)
    assert np.isfinite(program(**batch())["loss"])  # it goes on


@pytest.mark.parametrize(
    "image",
    [
        np.ones((6, 4), int),
        np.ones((6, 4), bool),
        [[1, 2, 3, 4]] * 6,
        np.ones((4, 6)).T,
        np.ones((6, 4), "float16"),
        np.ones((6, 4), "bfloat16"),
        np.broadcast_to(np.float64(1), (6, 4)),
        np.ones((6, 8), "float32")[:, ::2],
    ],
)
def test_inputs_are_converted_where_nothing_is_lost(program, image):
    wanted = program(image=np.asarray(image, "float32").copy(), label=batch()["label"])
    assert same(program(image=image, label=batch()["label"].astype("int32")), wanted)


def test_inputs_of_bfloat16():
    """In their own dtype; as two bytes, which files of NumPy call them; and other floats, rounded."""
    net = mg.Builder("halved")
    run = mg.compile(net.build(y=net.input("x", (3,), "bfloat16") * 0.5), mg.State())
    x = np.array([1.0, -3.0, 2.0**-130], "bfloat16")
    for given_array in (x, x.view("V2"), x.astype("float32"), x.astype("float64") * (1 + 2.0**-10)):
        found = run(x=given_array)["y"]
        assert (found.dtype, found.tolist()) == (x.dtype, [0.5, -1.5, 2.0**-131])
    with pytest.raises(GraphError, match=r"input 'x' is bfloat16\[3\]; got \|V4"):
        run(x=np.zeros(3, "V4"))
    with pytest.raises(GraphError, match=r"input 'x' is bfloat16\[3\]; got numbers that are too large for it"):
        run(x=np.array([1.0, 2.0, 1e39]))


class Closed:
    """An array of a library that NumPy cannot read, as others refuse their bfloat16."""

    def __array__(self, *args, **kwargs):
        raise TypeError("no bfloat16 there")


def test_an_array_that_numpy_cannot_read_is_refused(program):
    with pytest.raises(GraphError, match=r"input 'image' is float32\[N, 4\]; got what is no array: no bfloat16 there"):
        program(image=Closed(), label=batch()["label"])


@pytest.mark.parametrize(
    ("dtype", "given_array"),
    [("int8", [300, 1]), ("int32", [2**40, 1]), ("int8", np.array([-129, 0])), ("uint8", [-1, 0])],
)
def test_integers_that_do_not_fit_are_refused(dtype, given_array):
    net = mg.Builder()
    run = mg.compile(net.build(y=net.input("x", (2,), dtype) + 0), mg.State())
    with pytest.raises(GraphError, match="'x'"):
        run(x=given_array)


def test_a_list_of_small_integers_is_an_image_of_bytes():
    net = mg.Builder()
    run = mg.compile(net.build(y=net.input("x", (2,), "uint8") + 0), mg.State())
    assert run(x=[200, 3])["y"].tolist() == [200, 3]


def test_any_input_name_can_be_given():
    net = mg.Builder()
    graph = net.build(y=net.input("self", ()) + net.input("names", ()) + net.input("in.put", ()))
    run = mg.compile(graph, mg.State())
    inputs = {"self": 1, "names": 2, "in.put": 3}
    assert run(**inputs)["y"] == 6
    assert run.values(["add"], **inputs)["add"] == 3
    assert run.first_not_finite(**inputs) is None


def test_inputs_that_agree_tell_all_symbols():
    net = mg.Builder()
    a, b = net.input("a", ("N", "2*M")), net.input("b", ("M", "N"))
    run = mg.compile(net.build(y=mg.reshape(a, (-1,)), z=b), mg.State())
    assert run(a=np.zeros((3, 4)), b=np.zeros((2, 3)))["y"].shape == (12,)
    with pytest.raises(GraphError, match=r"input 'b' is float32\[M, N\] with M = 2; got shape \(3, 3\)"):
        run(a=np.zeros((3, 4)), b=np.zeros((3, 3)))
    with pytest.raises(GraphError, match=r"input 'a' is float32\[N, 2\*M\] with M = 3; got shape \(3, 5\)"):
        run(a=np.zeros((3, 5)), b=np.zeros((3, 3)))


def test_the_order_of_inputs_does_not_matter_for_their_sizes():
    net = mg.Builder()
    flat, matrix = net.input("flat", ("N*M",)), net.input("matrix", ("N", "M"))
    run = mg.compile(net.build(y=flat + mg.reshape(matrix, (-1,))), mg.State())
    assert run(flat=np.zeros(6), matrix=np.ones((2, 3)))["y"].tolist() == [1] * 6


@given(st.integers(0, 7))
def test_any_batch_size_runs(n):
    model = classifier(norm=False)
    outputs = mg.compile(model, model.init())(**batch(n))
    assert outputs["logits"].shape == (n, 3)
    assert np.isfinite(outputs["loss"]) == (n > 0)


def test_many_batch_sizes_one_after_the_other(program):
    first = program(**batch(3))
    for n in (2, 5, 9, 3, 17, 4, 8, 6, 7, 10, 11):
        assert program(**batch(n))["logits"].shape == (n, 3)
    assert np.array_equal(program(**batch(3))["logits"], first["logits"])


# a program: errors in the middle


def test_a_label_out_of_range_names_the_node_and_the_line():
    model = classifier()
    program = mg.compile(model, model.init())
    for label in (3, -1):
        inputs = batch()
        inputs["label"][4] = label
        with pytest.raises(
            GraphError,
            match=rf"(?s)cross_entropy 'cross_entropy'.*label {label} at \[4\] is outside of 0 to 2.*driver.py:\d+",
        ):
            program(**inputs)


def test_a_batch_that_is_too_small_says_so_in_the_users_terms():
    model = classifier()
    with pytest.raises(GraphError, match=r"(?s)one number for each channel.*N = 1.*test_driver.py:\d+"):
        mg.compile(model, model.init())(**batch(1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_error_in_the_middle_of_a_step_leaves_the_state(register, error):
    bomb = {"armed": False}

    def reference(x):
        if bomb["armed"]:
            raise error
        return x

    fragile = register("fragile", lambda x, /: x, reference, lambda gs, xs, ys: (mg.OPS["fragile"](gs[0]),))
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    model = net.build(loss=mg.mean(mg.relu(fragile(layers.batch_norm(layers.linear(x, 2))))))
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(0.1)), state)
    inputs = np.random.default_rng(0).normal(size=(4, 3))
    train(x=inputs)
    before = state.copy()
    bomb["armed"] = True
    with pytest.raises((error, GraphError)):
        train(x=inputs)
    assert same(state, before)
    bomb["armed"] = False
    train(x=inputs)  # the lock is free again
    assert not np.array_equal(state["linear1.weight"], before["linear1.weight"])


def test_an_interrupt_is_not_turned_into_another_error(register):
    def stop(x):
        raise KeyboardInterrupt

    fragile = register("fragile", lambda x, /: x, stop)
    net = mg.Builder()
    run = mg.compile(net.build(y=fragile(net.input("x", ()))), mg.State())
    for call in (lambda: run(x=1), lambda: run.values(["fragile"], x=1), lambda: run.first_not_finite(x=1)):
        with pytest.raises(KeyboardInterrupt):
            call()


def test_a_reference_that_fails_is_named(register):
    wrong = register("wrong", lambda x, /: x, lambda x: x.nothing)
    wide = register("wide", lambda x, /: x, lambda x: x.astype("float64"))
    net = mg.Builder()
    x = net.input("x", (2,))
    for made, message in (
        (wrong(x), r"(?s)wrong 'wrong': its reference failed: AttributeError.*test_driver.py:\d+"),
        (wide(x), r"(?s)wide 'wide': its reference gave float64\[2\] for wide: float32\[2\]"),
    ):
        with pytest.raises(GraphError, match=message):
            mg.compile(net.build(y=made), mg.State())(x=[1, 2])


def test_state_that_was_taken_away_is_named():
    model = classifier()
    state = model.init()
    program = mg.compile(model, state)
    del state["head.bias"]
    with pytest.raises(GraphError, match=r"no longer has 'head.bias'"):
        program(**batch())


def test_state_that_changed_its_form_is_named():
    model = classifier()
    state = model.init()
    program = mg.compile(model, state)
    del state["head.bias"]
    state["head.bias"] = np.zeros(1, "float32")  # would broadcast without a word
    with pytest.raises(GraphError, match=r"head.bias"):
        program(**batch())


# a program: what it returns


def test_outputs_alias_neither_state_nor_inputs_nor_each_other():
    net = mg.Builder()
    x, w = net.input("x", (2, 2)), net.parameter("w", (2, 2), mg.init.constant(1.0))
    net.update(w, x)
    y = mg.reshape(x, (4,))
    run = mg.compile(
        net.build(x=x, w=w, flat=y, again=y, turned=mg.transpose(w), wide=mg.broadcast_to(x, (3, 2, 2))),
        state := net.build().init(),
    )
    given_array = np.arange(4, dtype="float32").reshape(2, 2)
    outputs = run(x=given_array)
    arrays = [given_array, state["w"], *outputs.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for array in outputs.values():
        array[:] = 99  # the caller's own
    given_array[:] = 77
    assert state["w"].tolist() == [[0, 1], [2, 3]]
    assert run(x=np.zeros((2, 2)))["w"].tolist() == [[0, 1], [2, 3]]


def test_the_state_moves_after_the_outputs_were_made():
    net = mg.Builder()
    count = net.variable("count", (), mg.init.zeros)
    net.update(count, count + 1)
    run = mg.compile(net.build(count=count), state := net.build().init())
    assert [run()["count"] for _ in range(3)] == [0, 1, 2]
    assert state["count"] == 3
    state["count"] = 10  # what the user assigns is what the next step reads
    assert run()["count"] == 10


def test_threads_that_call_one_program_wait_for_each_other():
    net = mg.Builder()
    count, x = net.variable("count", (), mg.init.zeros, "float64"), net.input("x", ("N",), "float64")
    net.update(count, count + 1)
    run = mg.compile(net.build(seen=count + 0.0, sum=mg.sum(x)), state := net.build().init())
    seen: list = []
    wrong: list = []

    def work(number):
        for n in range(1, 40):
            outputs = run(x=np.full(n + number, 1.0))
            seen.append(float(outputs["seen"]))
            if outputs["sum"] != n + number:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(4 * 39))
    assert not wrong
    assert state["count"] == 4 * 39


# a program: looking inside


def test_values_are_given_on_request_and_nothing_moves():
    model = classifier()
    state = model.init(seed=0)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.1)), state)
    before = state.copy()
    got = train.values(["body.matmul", "loss", "image", "head.weight"], **batch())
    assert set(got) == {"body.matmul", "loss", "image", "head.weight"}
    np.testing.assert_allclose(got["body.matmul"], batch()["image"] @ before["body.weight"].T, rtol=1e-5, atol=1e-6)
    assert same(state, before)
    assert not np.shares_memory(got["head.weight"], state["head.weight"])
    assert got["loss"] == train(**batch())["loss"]
    with pytest.raises(GraphError, match="no value 'nothing'"):
        train.values(["nothing"], **batch())


def test_values_take_a_list_of_names():
    model = classifier()
    program = mg.compile(model, model.init())
    with pytest.raises(GraphError, match="names"):
        program.values("loss", **batch())


def test_values_of_dropout_are_those_of_the_next_step():
    net = mg.Builder()
    x = net.input("x", (50,))
    graph = net.build(y=layers.dropout(x, 0.5))
    run = mg.compile(graph, graph.init())
    looked = run.values(["y"], x=np.ones(50))["y"]
    first, second = (run(x=np.ones(50))["y"] for _ in range(2))
    assert np.array_equal(looked, first)
    assert not np.array_equal(first, second)


def test_peak_bytes_follow_the_size_of_the_batch():
    net = mg.Builder()
    h = net.input("x", ("N", 100))
    for _ in range(20):
        h = mg.exp(h)
    run = mg.compile(net.build(y=mg.sum(h)), mg.State())
    peaks = {}
    for n in (10, 20):
        run(x=np.zeros((n, 100)))
        peaks[n] = run.peak_bytes
        # a chain holds what it reads and what it writes, not twenty arrays
        assert n * 400 <= peaks[n] <= 3 * n * 400
    assert peaks[20] > 1.5 * peaks[10]


def test_peak_bytes_count_views_once():
    net = mg.Builder()
    x = mg.exp(net.input("x", (1000,)))
    run = mg.compile(net.build(y=mg.reshape(x, (10, 100)), z=mg.transpose(mg.reshape(x, (20, 50)))), mg.State())
    run(x=np.zeros(1000))
    assert run.peak_bytes == 4000


# the first NaN


def test_all_finite_is_none():
    model = classifier()
    state = model.init()
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(0.1)), state)
    before = state.copy()
    assert train.first_not_finite(**batch()) is None
    assert same(state, before)


def test_a_nan_in_an_input_is_found():
    model = classifier()
    inputs = batch()
    inputs["image"][2, 1] = np.nan
    inputs["image"][3, 0] = np.inf
    said = mg.compile(model, model.init()).first_not_finite(**inputs)
    assert said is not None
    assert "input 'image'" in said
    assert "1 NaN and 1 infinite of 24" in said
    assert "[2, 1]" in said


def test_a_nan_in_the_state_is_found():
    model = classifier()
    state = model.init()
    program = mg.compile(model, state)
    state["head.bias"] = [0, np.inf, 0]
    said = program.first_not_finite(**batch())
    assert said is not None
    assert "state 'head.bias'" in said
    assert "1 infinite of 3" in said


def test_a_nan_that_a_node_makes_is_found_with_its_line():
    net = mg.Builder()
    x = net.input("x", ("N",))
    y = mg.sum(mg.log(x) * 2.0)
    run = mg.compile(net.build(y=y), mg.State())
    said = run.first_not_finite(x=[1.0, -1.0, 0.0])
    assert said is not None
    for part in ("log 'log'", "1 NaN and 1 infinite of 3", "[1]", "test_driver.py:"):
        assert part in said


def test_a_nan_of_the_backward_names_the_forward_node():
    net = mg.Builder()
    w = net.parameter("w", (2,), mg.init.zeros)
    model = net.build(loss=mg.sum(mg.sqrt(w)))
    state = model.init()
    said = mg.compile(mg.training_step(model, "loss", mg.optim.SGD(0.1)), state).first_not_finite()
    assert said is not None
    assert "backward of sqrt" in said
    assert "test_driver.py:" in said


def test_integers_and_bools_are_finite():
    net = mg.Builder()
    x = net.input("x", (2,), "int64")
    assert mg.compile(net.build(y=x < 1), mg.State()).first_not_finite(x=[0, 1]) is None


def test_two_programs_that_move_one_state_lose_no_step():
    net = mg.Builder()
    total = net.variable("total", (), mg.init.zeros)
    net.update(total, total + net.input("x", ()))
    graph = net.build(total=total)
    state = graph.init()
    programs = [mg.compile(graph, state) for _ in range(2)]

    def work(program):
        for _ in range(300):
            program(x=1)

    threads = [threading.Thread(target=work, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state["total"] == 600
