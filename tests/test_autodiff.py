"""Gradients of networks: held against finite differences in float64, and against formulas where those are short."""

import numpy as np
import pytest

import minigraph as mg
from minigraph import GraphError, layers
from minigraph.core.autodiff import vjp

# Central differences with step h are off by h^2/6 times the third derivative, and by eps |f| / h of rounding: at
# h = 1e-5, with functions and third derivatives up to 1000, below 2e-8 each. A wrong rule is off by about 1.
STEP, TOLERANCE = 1e-5, 1e-7


def run(graph, **inputs):
    return mg.compile(graph, mg.State())(**inputs)


def differences(build, *arrays):
    """The gradient of build(*tensors), summed up, by central differences in each number of each array."""
    net = mg.Builder()
    tensors = [net.input(f"x{i}", a.shape, "float64") for i, a in enumerate(arrays)]
    program = mg.compile(net.build(y=mg.sum(build(*tensors))), mg.State())
    found = []
    for i, array in enumerate(arrays):
        slope = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = [a.copy() for a in arrays]
                moved[i][index] += step
                ends.append(program(**{f"x{j}": a for j, a in enumerate(moved)})["y"])
            slope[index] = (ends[0] - ends[1]) / (2 * STEP)
        found.append(slope)
    return found


def gradients(build, *arrays):
    net = mg.Builder()
    tensors = [net.input(f"x{i}", a.shape, "float64") for i, a in enumerate(arrays)]
    found = mg.gradient(mg.sum(build(*tensors)), tensors)
    outputs = run(net.build({f"g{i}": g for i, g in enumerate(found)}), **{f"x{i}": a for i, a in enumerate(arrays)})
    return [outputs[f"g{i}"] for i in range(len(arrays))]


def holds(build, *arrays):
    for got, wanted in zip(gradients(build, *arrays), differences(build, *arrays)):
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def perceptron(x, w, v):
    return mg.log_softmax(mg.tanh(x @ w) @ v) * np.arange(6.0).reshape(2, 3)


def convolutional(x, w):
    return mg.sigmoid(mg.avg_pool(mg.conv(x, w, stride=2, padding=1), 2, stride=1, padding=((0, 1), (1, 0))))


def normalized(x, gamma, beta):
    y, mean, var = mg.batch_norm(x, gamma, beta)
    return mg.sum(y * y * y) + mg.sum(mean * mg.sin(var))


def attention(q, k, v):
    return mg.softmax(q @ mg.transpose(k, (0, 2, 1))) @ v


def labelled(x):
    label = x.builder.constant(np.array([[0, 2], [1, 1]]))
    return mg.cross_entropy(mg.sin(x), label, reduction="none") * np.array([[1.0, -2.0], [0.5, 3.0]])


def rearranged(x, y):
    z = mg.concat([mg.transpose(x), mg.pad(y, ((0, 0), (1, 0)), value=2.0)], axis=0)
    return mg.exp(mg.slice(z, (1, 0), (None, 3), (2, 1)) * 0.3) * mg.reshape(mg.sum(z * z, 0), (1, 3))


def chosen(x, y):
    return mg.where(x < y, x * y, mg.log(mg.sqrt(x * x + 1.0) + 2.0) / (y * y + 1.0))


NETWORKS = {
    "perceptron": (perceptron, normal(2, 4), normal(4, 5), normal(5, 3)),
    "convolution": (convolutional, normal(2, 2, 5, 4), normal(3, 2, 3, 3)),
    "batch norm": (normalized, normal(4, 2, 3), normal(2), normal(2)),
    "attention": (attention, normal(2, 3, 2), normal(2, 4, 2), normal(2, 4, 3)),
    "cross entropy": (labelled, normal(2, 3, 2)),
    "rearranged": (rearranged, normal(3, 2), normal(3, 2, seed=1)),
    "chosen": (chosen, normal(3, 4), normal(1, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_differences(name):
    holds(*NETWORKS[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_gradients_are_finite_differences(name):
    build, *arrays = NETWORKS[name]

    def slope(*tensors):
        found = mg.gradient(mg.sum(build(*tensors)), tensors)
        return mg.sum(mg.concat([mg.reshape(mg.sin(g), (-1,)) for g in found]))

    holds(slope, *arrays)


def test_the_third_derivative_of_a_sine():
    net = mg.Builder()
    x = net.input("x", (3,), "float64")
    y = mg.sin(x)
    for _ in range(3):
        (y,) = mg.gradient(mg.sum(y), [x])
    at = np.array([0.1, 1.0, -2.0])
    np.testing.assert_allclose(run(net.build(y=y), x=at)["y"], -np.cos(at), rtol=1e-15)


# with respect to what


def test_with_respect_to_inner_values_and_state():
    net = mg.Builder()
    x = net.input("x", (), "float64")
    w = net.parameter("w", (), mg.init.constant(3.0), "float64")
    h = x * w
    y = h * h * x
    graph = net.build({f"g{i}": g for i, g in enumerate(mg.gradient(y, [x, w, h, y]))})
    state = graph.init()
    got = mg.compile(graph, state)(x=2.0)
    # y = (xw)^2 x: by x 3 x^2 w^2, by w 2 x^3 w, by h alone 2 h x, by itself 1
    assert [got[f"g{i}"] for i in range(4)] == [3 * 4 * 9, 2 * 8 * 3, 2 * 6 * 2, 1]


def test_with_respect_to_one_of_several_outputs():
    net = mg.Builder()
    x = net.input("x", (4, 2), "float64")
    y, mean, var = mg.batch_norm(x, np.ones(2), np.zeros(2))
    by_mean, by_var = mg.gradient(mg.sum(mean * mean + 3.0 * var) + mg.sum(y), [mean, var])
    at = normal(4, 2)
    got = run(net.build(mean=by_mean, var=by_var), x=at)
    np.testing.assert_allclose(got["mean"], 2 * at.mean(0), rtol=1e-13)
    np.testing.assert_array_equal(got["var"], [3, 3])


def test_the_same_tensor_asked_for_twice():
    net = mg.Builder()
    x = net.input("x", (2,), "float64")
    a, b = mg.gradient(mg.sum(x * x), [x, x])
    got = run(net.build(a=a, b=b), x=[1.0, 2.0])
    assert got["a"].tolist() == got["b"].tolist() == [2, 4]


def test_a_tensor_that_is_used_many_times():
    net = mg.Builder()
    x = net.input("x", (3,), "float64")
    y = x * x + x / x - (-x) + mg.where(x > 0, x, x)
    for _ in range(5):
        y = y + x * y  # (1 + x)^5 times what it was
    (g,) = mg.gradient(mg.sum(y), [x])
    at = np.array([0.3, 0.7, 1.1])
    inner, slope = at**2 + 1 + 2 * at, 2 * at + 2
    np.testing.assert_allclose(
        run(net.build(g=g), x=at)["g"], slope * (1 + at) ** 5 + inner * 5 * (1 + at) ** 4, rtol=1e-14
    )


def test_both_inputs_of_one_node():
    holds(lambda x: x @ x, normal(3, 3))
    holds(lambda x: mg.conv(mg.reshape(x, (1, 3, 3)), mg.reshape(x, (3, 3, 1))), normal(3, 3))


def test_broadcasting_is_added_up():
    net = mg.Builder()
    x, b = net.input("x", ("N", 1, 3), "float64"), net.input("b", (2, 1), "float64")
    gx, gb = mg.gradient(mg.sum(x * b), [x, b])
    assert gx.shape == x.shape
    got = run(net.build(gx=gx, gb=gb), x=np.arange(12.0).reshape(4, 1, 3), b=[[1.0], [10.0]])
    assert got["gb"].ravel().tolist() == [66, 66]
    assert got["gx"].ravel().tolist() == [11] * 12


# seeds


def test_a_seed_weighs_the_outputs():
    net = mg.Builder()
    x = net.input("x", ("N",), "float64")
    seed = net.input("seed", ("N",), "float64")
    (g,) = mg.gradient(x * x, [x], seed)
    assert run(net.build(g=g), x=[1.0, 2.0], seed=[10.0, -1.0])["g"].tolist() == [20, -4]


def test_several_outputs_have_a_seed_each():
    net = mg.Builder()
    x = net.input("x", (2,), "float64")
    y, z = x * 3.0, mg.sum(x * x)
    (g,) = vjp(
        [y, z, y],
        [net.constant(np.array([1.0, 2.0])), net.constant(5.0, "float64"), net.constant(np.array([1.0, 0.0]))],
        [x],
    )
    assert g is not None
    assert run(net.build(g=g), x=[1.0, 2.0])["g"].tolist() == [3 + 10 + 3, 6 + 20]


def test_a_seed_of_another_type_is_refused():
    net = mg.Builder()
    x = net.input("x", (2,), "float64")
    for seed in (net.constant(1.0, "float64"), net.constant(np.ones(2, "float32")), net.constant(np.ones(3))):
        with pytest.raises(GraphError, match="does not have the type of"):
            mg.gradient(x * x, [x], seed)


# where there is none


def test_no_gradient_passes_stop_gradient():
    net = mg.Builder()
    x = net.input("x", (), "float64")
    (g,) = mg.gradient(x * mg.stop_gradient(x), [x])
    assert run(net.build(g=g), x=7.0)["g"] == 7
    with pytest.raises(GraphError, match="stop_gradient"):
        mg.gradient(mg.stop_gradient(x) * 2.0, [x])


@pytest.mark.parametrize(
    "build",
    [
        lambda x, y: mg.sum(y),
        lambda x, y: mg.sum(mg.cast(x < y, "float32")),
        lambda x, y: mg.sum(mg.cast(mg.argmax(x), "float32")),
        lambda x, y: mg.sum(mg.cast(mg.cast(x, "int32"), "float32")),
        lambda x, y: x.builder.constant(1.0),
    ],
    ids=["another input", "comparison", "argmax", "integers", "constant"],
)
def test_what_does_not_depend_is_an_error_that_names_both(build):
    net = mg.Builder()
    x, y = net.input("x", (2,)), net.input("y", (2,))
    with pytest.raises(GraphError, match=r"does not depend on x: float32\[2\]"):
        mg.gradient(build(x, y), [x])


def test_one_of_many_that_does_not_depend_is_named():
    net = mg.Builder()
    x, y = net.input("x", (2,)), net.input("y", (2,))
    with pytest.raises(GraphError, match="does not depend on y"):
        mg.gradient(mg.sum(x), [x, y])


def test_integers_have_no_gradient():
    net = mg.Builder()
    x, n = net.input("x", (2,)), net.input("n", (2,), "int64")
    with pytest.raises(GraphError, match=r"n: int64\[2\] has no gradient: it is not a float"):
        mg.gradient(mg.sum(x * mg.cast(n, "float32")), [n])
    with pytest.raises(GraphError, match="is not a float"):
        mg.gradient(mg.sum(n), [x])


def test_the_gradient_is_of_one_number():
    x = mg.Builder().input("x", ("N", 2))
    with pytest.raises(GraphError, match="add them up with sum or mean, or give a seed"):
        mg.gradient(x, [x])


def test_tensors_of_another_graph_are_refused():
    x, y = mg.Builder().input("x", ()), mg.Builder().input("y", ())
    with pytest.raises(GraphError, match="another graph"):
        mg.gradient(x, [y])


def test_relu_and_max_share_as_they_say():
    net = mg.Builder()
    x = net.input("x", (4,), "float64")
    relu, largest = (mg.gradient(mg.sum(y), [x])[0] for y in (mg.relu(x), mg.max(x)))
    got = run(net.build(relu=relu, largest=largest), x=[0.0, 3.0, -1.0, 3.0])
    assert got["relu"].tolist() == [0, 1, 0, 1]  # the derivative at 0 is 0
    assert got["largest"].tolist() == [0, 0.5, 0, 0.5]


# ops of a user's own


def test_an_op_with_only_an_expansion_is_differentiated_through_it(register):
    swish = register(
        "swish",
        lambda x, /, *, slope=1.0: x,
        lambda x, slope: x / (1 + np.exp(-slope * x)),
        expand=lambda x, slope: x * mg.sigmoid(x * slope),
    )
    holds(lambda x: swish(x, slope=1.5), normal(3, 2))
    holds(lambda x: mg.sin(mg.gradient(mg.sum(swish(x)), [x])[0]), normal(3, 2))


def test_an_expansion_with_several_outputs_and_shared_inputs(register):
    both = register(
        "both",
        lambda x, y, /: (x, x),
        lambda x, y: (x * y, x + y),
        expand=lambda x, y: (x * y, x + y),
        outputs=("p", "s"),
    )

    def build(x, y):
        p, s = both(x, y)
        q, _ = both(p, p)  # the second output is not used, one tensor is both inputs
        return mg.sin(q) + s * x

    holds(build, normal(3), normal(3, seed=1))


def test_an_expansion_that_gives_one_tensor_as_two_outputs(register):
    def twice(x):
        y = mg.sin(x)
        return y, y

    op_ = register("twice", lambda x, /: (x, x), lambda x: (np.sin(x), np.sin(x)), expand=twice, outputs=("a", "b"))

    def build(x):
        a, b = op_(x)
        return a * b + 3.0 * b

    holds(build, normal(4))


def test_an_expansion_that_gives_an_input_back(register):
    first = register("first", lambda x, y, /: x, lambda x, y: x, expand=lambda x, y: x)
    net = mg.Builder()
    x, y = net.input("x", (2,)), net.input("y", (2,))
    (g,) = mg.gradient(mg.sum(first(x, y) * 3.0), [x])
    assert run(net.build(g=g), x=[1, 2], y=[3, 4])["g"].tolist() == [3, 3]
    with pytest.raises(GraphError, match="does not depend on y"):
        mg.gradient(mg.sum(first(x, y)), [y])


def test_an_op_without_a_gradient_says_so_with_its_line(register):
    hard = register("hard", lambda x, /: x, np.sign)
    x = mg.Builder().input("x", (2,))
    y = mg.sum(hard(x))
    with pytest.raises(GraphError, match=r"(?s)hard 'hard': the op hard has no gradient.*test_autodiff.py:\d+"):
        mg.gradient(y, [x])
    (g,) = mg.gradient(mg.sum(x + mg.stop_gradient(hard(x))), [x])  # where none is needed there is no error
    assert g.shape == (2,)


def test_a_gradient_of_a_wrong_shape_is_named(register):
    wrong = register("wrong", lambda x, /: x, lambda x: x, lambda gs, xs, ys: (mg.sum(gs[0]),))
    x = mg.Builder().input("x", (2,))
    with pytest.raises(GraphError, match=r"wrong 'wrong': its gradient for x: float32\[2\] .*float32\[\]"):
        mg.gradient(mg.sum(wrong(x)), [x])


def test_a_gradient_rule_of_a_wrong_length_is_named(register):
    short = register("short", lambda x, y, /: x, lambda x, y: x, lambda gs, xs, ys: (gs[0],))
    x = mg.Builder().input("x", (2,))
    with pytest.raises(GraphError, match="short"):
        mg.gradient(mg.sum(short(x, x)), [x])


# networks with state


def test_gradients_of_a_network_with_dropout_see_the_mask_of_the_forward():
    net = mg.Builder()
    x = net.input("x", (200,), "float64")
    y = layers.dropout(x * x, 0.5)
    (g,) = mg.gradient(mg.sum(y), [x])
    graph = net.build(y=y, g=g)
    program = mg.compile(graph, graph.init())
    at = normal(200)
    got = program(x=at)
    kept = got["y"] != 0
    assert 60 < kept.sum() < 140  # 200 coins: five deviations are 35
    np.testing.assert_allclose(got["g"], np.where(kept, 4 * at, 0), rtol=1e-15)


def test_differentiating_leaves_the_forward_nodes_as_they_are():
    net = mg.Builder()
    x = net.input("x", ("N", 3))
    loss = mg.mean(layers.batch_norm(layers.linear(x, 2)))
    before = net.build(loss=loss)
    text = str(before)
    mg.gradient(loss, list(net.parameters))
    assert str(net.build(loss=loss)) == text
    assert all(a is b for a, b in zip(net.build(loss=loss).nodes, before.nodes))
