"""Optimizers and schedules, against loops in NumPy that are written from the papers' formulas, in float64."""

import math

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, optim

STEPS = 20
SHAPES = {"a.weight": (3, 2), "a.bias": (2,), "deep.gamma": (1, 2, 2), "scalar": ()}
# The step's own numbers are float64; the rate is a float32, or float64 rounded once to float32 (6e-8), and so may be
# corrections by the step's number. Each of 20 steps adds its rounding to what moves, so 20 * 6e-8.
TOLERANCE = 2e-6


def model(dtype="float64"):
    """loss = sum of w * x + w^2 * y for parameters of several ranks; x and y are given anew at each step."""
    net = mg.Builder()
    loss = net.constant(0.0, dtype)
    for name, shape in SHAPES.items():
        w = net.parameter(name, shape, mg.init.normal(1.0), dtype)
        x, y = net.input(f"x.{name}", shape, dtype), net.input(f"y.{name}", shape, dtype)
        loss = loss + mg.sum(w * x + w * w * y)
    return net.build(loss=loss)


def batches():
    rng = np.random.default_rng(5)
    return [
        {f"{k}.{name}": rng.normal(size=shape) for name, shape in SHAPES.items() for k in "xy"} for _ in range(STEPS)
    ]


def compare(optimizer, by_hand, dtype="float64", tolerance=TOLERANCE):
    """Run STEPS steps, and `by_hand(name, w, g, memory, t)` beside them: it returns the new w; t counts from 1."""
    graph = model(dtype)
    state = graph.init(seed=2)
    expected = {name: state[name].astype("float64") for name in SHAPES}
    memories: dict = {name: {} for name in SHAPES}
    train = mg.compile(mg.training_step(graph, "loss", optimizer), state)
    for t, batch in enumerate(batches(), 1):
        train(**batch)
        for name, w in expected.items():
            gradient = batch[f"x.{name}"] + 2 * w * batch[f"y.{name}"]
            expected[name] = by_hand(name, w, gradient, memories[name], t)
        for name in SHAPES:
            np.testing.assert_allclose(
                state[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=f"{name}, step {t}"
            )
    return state


def decayed(name, amount):
    return amount if len(SHAPES[name]) >= 2 else 0.0


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd(decay):
    def by_hand(name, w, g, memory, t):
        return w - 0.05 * (g + decayed(name, decay) * w)

    state = compare(optim.SGD(0.05, weight_decay=decay), by_hand)
    assert [name for name in state if name.startswith("optimizer")] == ["optimizer.step"]
    assert state["optimizer.step"] == STEPS


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_with_momentum(nesterov, decay):
    def by_hand(name, w, g, memory, t):
        g = g + decayed(name, decay) * w
        v = memory["v"] = g if t == 1 else 0.9 * memory["v"] + g
        return w - 0.05 * (g + 0.9 * v if nesterov else v)

    compare(optim.SGD(0.05, momentum=0.9, nesterov=nesterov, weight_decay=decay), by_hand)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_rmsprop(momentum, decay):
    def by_hand(name, w, g, memory, t):
        g = g + decayed(name, decay) * w
        s = memory["s"] = 0.95 * memory.get("s", 0) + 0.05 * g**2
        v = memory["v"] = momentum * memory.get("v", 0) + g / (np.sqrt(s) + 1e-3)
        return w - 0.02 * v

    compare(optim.RMSprop(0.02, rho=0.95, eps=1e-3, momentum=momentum, weight_decay=decay), by_hand)


def adam(decay, coupled, rate=0.05, beta1=0.9, beta2=0.99, eps=1e-6):
    def by_hand(name, w, g, memory, t):
        amount = decayed(name, decay)
        if coupled:
            g = g + amount * w
        m = memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
        v = memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        lost = 0 if coupled else rate * amount * w
        return w - rate * m_hat / (np.sqrt(v_hat) + eps) - lost

    return by_hand


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "coupled"), [(optim.Adam, True), (optim.AdamW, False)])
def test_adam(kind, coupled, decay):
    compare(kind(0.05, beta2=0.99, eps=1e-6, weight_decay=decay), adam(decay, coupled))


def test_adam_with_a_large_eps_adds_it_after_the_root():
    compare(optim.Adam(0.05, beta2=0.99, eps=0.5), adam(0, True, eps=0.5))


def test_defaults_are_the_papers():
    compare(optim.Adam(0.01), adam(0, True, rate=0.01, beta2=0.999, eps=1e-8))
    compare(optim.AdamW(0.01), adam(0.01, False, rate=0.01, beta2=0.999, eps=1e-8))


def test_the_first_steps_of_adam_in_float32():
    net = mg.Builder()
    w = net.parameter("w", (), mg.init.zeros)
    graph = net.build(loss=w * 3.0)
    state = graph.init()
    train = mg.compile(mg.training_step(graph, "loss", optim.Adam(1.0)), state)
    for t in range(1, 6):
        train()
        # A constant gradient moves w by the rate, in a handful of roundings of 6e-8. 1 - 0.999^t as a difference of two
        # float32 numbers near 1 would be off by 6e-8 / 0.001.
        np.testing.assert_allclose(state["w"], -t, rtol=2e-6)


def test_the_rate_of_a_float64_network_is_a_float64():
    graph = model("float64")
    state = graph.init(seed=0)
    before = state.copy()
    batch = {name: np.ones_like(array) for name, array in batches()[0].items()}
    mg.compile(mg.training_step(graph, "loss", optim.SGD(0.1)), state)(**batch)
    for name in SHAPES:
        np.testing.assert_allclose(state[name], before[name] - 0.1 * (1 + 2 * before[name]), rtol=1e-14, atol=1e-15)


# weight decay


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW])
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, ["a.weight", "deep.gamma"]),
        ("*.weight", ["a.weight"]),
        ("*.bias", ["a.bias"]),
        ("*", list(SHAPES)),
        ("scalar", ["scalar"]),
    ],
)
def test_decay_takes_hold_of_what_it_should(make, pattern, names):
    graph = model()
    ends = []
    for amount in (0.0, 0.5):
        state = graph.init(seed=0)
        train = mg.compile(mg.training_step(graph, "loss", make(0.01, weight_decay=amount, decay=pattern)), state)
        train(**batches()[0])
        train(**batches()[1])
        ends.append(state)
    assert [name for name in SHAPES if not np.array_equal(ends[0][name], ends[1][name])] == names


def test_a_decay_pattern_that_names_nothing_is_refused():
    with pytest.raises(GraphError, match=r"\*\.wieght"):
        mg.training_step(model(), "loss", optim.SGD(0.1, weight_decay=0.1, decay="*.wieght"))


def test_decay_of_batch_norm_and_biases_by_default():
    net = mg.Builder()
    h = mg.layers.batch_norm(mg.layers.conv2d(net.input("x", ("N", 1, 4, 4)), 2, 3))
    graph = net.build(loss=mg.sum(h) * 0.0)  # nothing but decay moves anything
    state = graph.init(seed=0)
    before = state.copy()
    mg.compile(mg.training_step(graph, "loss", optim.SGD(0.1, weight_decay=0.5)), state)(
        x=np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    )
    np.testing.assert_allclose(state["conv1.weight"], before["conv1.weight"] * 0.95, rtol=1e-6)
    for name in ("conv1.bias", "bn1.gamma", "bn1.beta"):
        assert np.array_equal(state[name], before[name])


# schedules


def rates(schedule, steps):
    """What a schedule gives at each of these steps."""
    net = mg.Builder()
    step = net.input("step", ())
    run = mg.compile(net.build(rate=schedule(step)), mg.State())
    return [float(run(step=s)["rate"]) for s in steps]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (optim.constant(0.25), {0: 0.25, 1000: 0.25}),
        (optim.piecewise([1.0, 0.5, 0.125], [10, 20]), {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.125, 10**6: 0.125}),
        (optim.piecewise([2.0], []), {0: 2, 5: 2}),
        (optim.cosine(1.0, 100), {0: 1, 50: 0.5, 100: 0, 101: 0, 10**6: 0}),
        (optim.cosine(1.0, 8, final=0.5), {0: 1, 4: 0.75, 8: 0.5, 9: 0.5}),
        (optim.warmup(4, 1.0), {0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: 1, 99: 1}),
        (optim.warmup(4, optim.piecewise([1.0, 0.5], [2])), {0: 0.25, 3: 1, 4: 1, 5: 1, 6: 0.5}),
        (optim.warmup(2, optim.cosine(1.0, 4)), {0: 0.5, 1: 1, 2: 1, 4: 0.5, 6: 0, 7: 0}),
        (optim.exponential(1.0, 0.5), {0: 1, 1: 0.5, 2: 0.25, 10: 2**-10}),
        (optim.exponential(8.0, 0.5, every=10), {0: 8, 10: 4, 20: 2, 30: 1}),
    ],
)
def test_schedules_at_named_steps(schedule, wanted):
    # the cosine of a float32 near pi/2 is known to 1e-7, and an exponential to 1e-7 times its exponent (up to 7)
    np.testing.assert_allclose(rates(schedule, wanted), list(wanted.values()), rtol=1e-6, atol=1e-7)


def test_schedules_are_smooth_where_they_should_be():
    cosine = rates(optim.cosine(0.3, 50, final=0.1), range(60))
    for step, rate in enumerate(cosine):
        part = min(step / 50, 1)
        assert rate == pytest.approx(0.1 + 0.2 * (1 + math.cos(math.pi * part)) / 2, abs=1e-7)
    assert rates(optim.exponential(0.1, 0.9, 3), [7])[0] == pytest.approx(0.1 * 0.9 ** (7 / 3), rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.piecewise([1.0, 0.5], [1, 2]),
        lambda: optim.piecewise([1.0, 0.5, 0.1], [2, 1]),
        lambda: optim.cosine(1.0, 0),
        lambda: optim.exponential(1.0, 0.0),
        lambda: optim.exponential(1.0, 0.5, 0),
        lambda: optim.warmup(0, 1.0),
        lambda: optim.warmup(3, "rate"),
        lambda: optim.SGD(0.1, momentum=1.0),
        lambda: optim.SGD(0.1, momentum=-0.1),
        lambda: optim.SGD(0.1, nesterov=True),
        lambda: optim.Adam(0.1, beta1=1.0),
        lambda: optim.Adam(0.1, beta2=1.5),
        lambda: optim.AdamW(0.1, beta1=-0.1),
    ],
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(GraphError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.RMSprop(0.1, momentum=1.0),
        lambda: optim.RMSprop(0.1, rho=1.5),
        lambda: optim.Adam(0.1, eps=-1.0),
        lambda: optim.SGD(0.1, weight_decay=-1.0),
        lambda: optim.SGD(float("nan")),
        lambda: optim.SGD([0.1]),  # type: ignore[arg-type]
    ],
)
def test_nonsense_numbers_are_refused(make):
    with pytest.raises(GraphError):
        make()


def test_a_schedule_counts_the_steps_of_the_optimizer():
    def by_hand(name, w, g, memory, t):
        return w - [0.1, 0.05, 0.02][(t > 3) + (t > 7)] * g

    compare(optim.SGD(optim.piecewise([0.1, 0.05, 0.02], [3, 7])), by_hand)


def test_a_schedule_of_accumulated_steps_counts_the_optimizers():
    net = mg.Builder()
    w = net.parameter("w", (), mg.init.zeros)
    graph = net.build(loss=w * 1.0)
    state = graph.init()
    train = mg.compile(
        mg.training_step(graph, "loss", optim.SGD(optim.piecewise([1.0, 0.25], [2])), accumulate=3), state
    )
    moves = []
    for _ in range(9):
        before = float(state["w"])
        train()
        moves.append(before - float(state["w"]))
    # 3 * (1/3) in float32
    np.testing.assert_allclose(moves, [0, 0, 1, 0, 0, 1, 0, 0, 0.25], rtol=1e-6)
    assert state["optimizer.step"] == 3


def test_a_schedule_of_the_users_own():
    def by_hand(name, w, g, memory, t):
        return w - 0.1 / math.sqrt(t) * g

    compare(optim.SGD(lambda step: 0.1 / mg.sqrt(step + 1.0)), by_hand)


def test_the_rate_is_given_at_run_time():
    graph = model()
    state = graph.init(seed=0)
    train = mg.compile(mg.training_step(graph, "loss", optim.SGD("rate")), state)
    for rate, batch in zip((0.5, 0.0, 0.25), batches()):
        before = state.copy()
        train(**batch, rate=rate)
        for name in SHAPES:
            gradient = batch[f"x.{name}"] + 2 * before[name] * batch[f"y.{name}"]
            np.testing.assert_allclose(state[name], before[name] - rate * gradient, rtol=1e-13, atol=1e-15)
    with pytest.raises(GraphError, match="'rate' is missing"):
        train(**batches()[0])


def test_a_rate_with_the_name_of_an_input_is_refused():
    with pytest.raises(GraphError, match=r"already something called 'x.scalar'"):
        mg.training_step(model(), "loss", optim.SGD("x.scalar"))


# slots


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (optim.SGD(0.1), []),
        (optim.SGD(0.1, momentum=0.9), ["velocity"]),
        (optim.RMSprop(0.1), ["square"]),
        (optim.RMSprop(0.1, momentum=0.9), ["square", "velocity"]),
        (optim.Adam(0.1), ["m", "v"]),
        (optim.AdamW(0.1), ["m", "v"]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slots_have_the_names_shapes_and_dtypes_of_their_parameters(optimizer, slots, dtype):
    step = mg.training_step(model(dtype), "loss", optimizer)
    made = {v.name: v for v in step.state if v.name not in SHAPES}
    assert set(made) == {"optimizer.step", *(f"optimizer.{name}.{slot}" for name in SHAPES for slot in slots)}
    assert made.pop("optimizer.step").kind == "counter"
    for name, variable in made.items():
        parameter = name.removeprefix("optimizer.").rpartition(".")[0]
        assert variable.kind == "slot"
        assert (variable.value.type.shape, variable.value.type.dtype) == (SHAPES[parameter], dtype)
        assert variable.initializer == mg.init.constant(0.0)


def test_what_does_not_move_is_left_alone():
    graph = model()
    state = graph.init(seed=0)
    before = state.copy()
    train = mg.compile(mg.training_step(graph, "loss", optim.Adam(0.1), trainable="a.*"), state)
    for batch in batches()[:3]:
        train(**batch)
    assert all(np.array_equal(state[name], before[name]) for name in ("deep.gamma", "scalar"))
    assert not any(name.startswith(("optimizer.deep", "optimizer.scalar")) for name in state)


def test_an_optimizer_of_the_users_own():
    class Sign(optim.Optimizer):
        def step(self, builder, parameter, gradient, rate, time):
            return mg.where(gradient < 0, -rate, rate) * mg.broadcast_to(
                builder.constant(1.0, parameter.dtype), parameter.shape
            )

    def by_hand(name, w, g, memory, t):
        return w - 0.01 * np.where(g < 0, -1, 1)

    compare(Sign(0.01), by_hand)


@pytest.mark.parametrize("make", [optim.RMSprop, optim.Adam, optim.AdamW])
def test_half_precision_weights_with_no_gradient_stay_numbers(make):
    """1e-8 is 0 in float16, and 0 / (0 + 0) no number: slots and the step are float32."""
    net = mg.Builder()
    w = net.parameter("w", (2,), mg.init.ones, "float16")
    graph = net.build(loss=mg.sum(w * net.input("x", (2,), "float16")))
    state = graph.init()
    train = mg.compile(mg.training_step(graph, "loss", make(0.25)), state)
    train(x=[0.0, 1.0])
    assert state["w"].dtype == np.float16
    assert state["w"][0] == 1.0
    assert np.isfinite(state["w"]).all()
    assert state["w"][1] < 1.0
    assert all(state[name].dtype == np.float32 for name in train.created if name.startswith("optimizer.w."))


def test_a_parameter_that_the_model_moves_itself_is_not_trained_as_well():
    net = mg.Builder()
    w = net.parameter("w", (2,), mg.init.ones)
    net.update(w, mg.clip(w, -1.0, 1.0))
    graph = net.build(loss=mg.sum(w * w))
    with pytest.raises(GraphError, match=r"w: float32.* is updated by the model itself"):
        mg.training_step(graph, "loss", optim.SGD(0.1))
