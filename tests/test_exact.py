"""Numbers that do not round: they are a field, carry derivatives, and refute what is wrong."""

import operator
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import GraphError
from minigraph.core import exact, op, proof
from minigraph.core.exact import PRIME, Modular, NeedsOrder, Rational, Redraw, Unknown
from minigraph.core.op import Sample, positive, real
from minigraph.core.scalar import exp, log, sigmoid, sin, sqrt, tanh

KINDS = [Modular, Rational]
both = pytest.mark.parametrize("kind", KINDS)
fractions = st.builds(Fraction, st.integers(-99, 99), st.integers(1, 20))
pairs = st.tuples(fractions, fractions)  # a number and its slope
FUNCTIONS = ["exp", "log", "tanh", "sigmoid", "sin", "cos", "sqrt"]


def number(kind, value, slope=0, world=None):
    return kind(kind.field(value), kind.field(slope), world or Unknown(0))


def parts(n):
    return n.value, n.slope


# a field


@both
@given(a=pairs, b=pairs, c=pairs)
def test_the_axioms_of_a_field_hold_for_values_and_slopes(kind, a, b, c):
    world = Unknown(0)
    x, y, z = (number(kind, value, slope, world) for value, slope in (a, b, c))
    one, zero = number(kind, 1, 0, world), number(kind, 0, 0, world)
    for left, right in (
        (x + y, y + x),
        (x * y, y * x),
        ((x + y) + z, x + (y + z)),
        ((x * y) * z, x * (y * z)),
        (x * (y + z), x * y + x * z),
        (x + zero, x),
        (x * one, x),
        (x + -x, zero),
        (x - y, x + -y),
        (x + 1, 1 + x),
        (2 * x, x + x),
        (1 - x, -(x - 1)),
    ):
        assert parts(left) == parts(right)


@both
@given(a=pairs, b=pairs)
def test_division_undoes_multiplication(kind, a, b):
    assume(b[0] != 0)
    x, y = number(kind, *a), number(kind, *b)
    assert parts(x / y * y) == parts(x)
    assert parts(1 / y * y) == (1, 0)
    assert parts(x / 3 * 3) == parts(x)


@both
@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul, operator.truediv])
@given(a=fractions, b=fractions)
def test_arithmetic_is_that_of_fractions(kind, f, a, b):
    assume(f is not operator.truediv or b != 0)
    assert f(number(kind, a), number(kind, b)).value == number(kind, f(a, b)).value
    assert f(number(kind, a), np.float64(0.75)).value == number(kind, f(a, Fraction(3, 4))).value
    assert f(2, number(kind, b or 1)).value == number(kind, f(Fraction(2), b or 1)).value


@both
def test_numbers_enter_exactly(kind):
    assert number(kind, 0.1) == Fraction(0.1)  # not 1/10: the number that the machine has
    assert number(kind, 0.1) != Fraction(1, 10)
    assert number(kind, np.float32(0.5)) == 0.5
    assert number(kind, np.int64(-3)) == -3
    assert number(kind, True) == 1
    assert number(kind, 2) - 2 == 0


@both
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_what_is_no_number_is_refused(kind, wrong):
    with pytest.raises(GraphError, match="is not a number that exact arithmetic knows"):
        number(kind, 1) + wrong


@both
def test_division_by_zero_asks_for_other_inputs(kind):
    with pytest.raises(Redraw):
        number(kind, 1) / (number(kind, 2) - 2)


def test_modular_values_stay_below_the_prime():
    x = number(Modular, PRIME - 1)
    for y in (x + x, x * x, -x, x - 2, x / 3):
        assert 0 <= y.value < PRIME
        assert 0 <= y.slope < PRIME
    assert (x + 1).value == 0
    assert x == -1


# derivatives


@both
@given(a=pairs, b=pairs)
def test_sums_products_and_quotients_have_their_slopes(kind, a, b):
    assume(b[0] != 0)
    (x, dx), (y, dy) = a, b
    u, v = number(kind, *a), number(kind, *b)
    for got, wanted in (
        (u + v, dx + dy),
        (u - v, dx - dy),
        (-u, -dx),
        (u * v, dx * y + x * dy),
        (u / v, (dx * y - x * dy) / y**2),
        (u * u * u, 3 * x**2 * dx),
        (3 * u - 7, 3 * dx),
        (1 / v, -dy / y**2),
    ):
        assert got.slope == number(kind, wanted).value


@both
@pytest.mark.parametrize("name", FUNCTIONS)
@given(slope=fractions, factor=fractions)
def test_the_chain_rule_holds_for_every_function(kind, name, slope, factor):
    assume(factor != 0)
    world = Unknown(0)
    alone = getattr(number(kind, 4, 1, world), name)()  # 4 has a root
    moved = getattr(number(kind, 4 / factor, slope, world) * factor, name)()
    assert parts(moved) == (alone.value, number(kind, alone.slope * slope * factor).value)


@both
def test_the_derivatives_are_those_of_the_textbook(kind):
    world = Unknown(1)
    x = number(kind, Fraction(9, 4), 1, world)
    still = number(kind, Fraction(9, 4), 0, world)
    for name, derivative in {
        "exp": lambda y: y,
        "log": lambda y: 1 / still,
        "tanh": lambda y: 1 - y * y,
        "sigmoid": lambda y: y * (1 - y),
        "sin": lambda y: still.cos(),
        "cos": lambda y: -still.sin(),
        "sqrt": lambda y: 1 / (2 * y),
    }.items():
        assert getattr(x, name)().slope == derivative(getattr(still, name)()).value, name


# functions


@both
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_one_argument_one_answer(kind, name):
    world = Unknown(0)
    call = lambda value: getattr(number(kind, value, 0, world), name)().value
    assert call(4) == call(Fraction(8, 2))
    assert call(4) != call(9)  # two random answers: equal with a chance of 1/96 at most, and here they are not
    others = [getattr(number(kind, 4, 0, Unknown(seed)), name)().value for seed in range(5)]
    assert len(set(others)) > 1 or (kind is Rational and name == "sqrt")


@both
@pytest.mark.parametrize(
    "claim",
    [
        lambda x, y: (exp(x + y), exp(x) * exp(y)),
        lambda x, y: (log(exp(x)), x),
        lambda x, y: (sin(x), x),
        lambda x, y: (tanh(x), sigmoid(x)),
        lambda x, y: (sin(-x), -sin(x)),
        lambda x, y: (sqrt(x + y), sqrt(x) + sqrt(y)),
    ],
)
def test_nothing_else_is_promised_of_functions(kind, claim):
    world = Unknown(3)
    x, y = (np.array([number(kind, n, 0, world)]) for n in (16, 9))
    left, right = claim(x, y)
    assert not np.all(left == right)


@both
@given(root=st.builds(Fraction, st.integers(1, 99), st.integers(1, 20)), slope=fractions)
def test_a_root_times_itself_is_the_number(kind, root, slope):
    x = number(kind, root * root, slope)
    y = x.sqrt()
    assert parts(y * y) == parts(x)
    assert parts(x / y) == parts(y)


def test_a_number_without_a_root_asks_for_other_inputs():
    # -1 is no square modulo a prime of the form 4k + 3
    assert PRIME % 4 == 3
    with pytest.raises(Redraw):
        number(Modular, -1).sqrt()


def test_about_half_of_all_numbers_have_roots_of_either_sign():
    world, found = Unknown(0), []
    for n in range(2, 202):
        try:
            found.append(number(Modular, n, 0, world).sqrt().value)
        except Redraw:
            continue
    assert 60 < len(found) < 140
    assert 10 < sum(pow(root, (PRIME - 1) // 2, PRIME) == 1 for root in found) < len(found) - 10


def test_only_fractions_have_an_order():
    a, b = number(Modular, 2), number(Modular, 3)
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(NeedsOrder):
            compare(a, b)
        with pytest.raises(NeedsOrder):
            compare(a, 0)
    with pytest.raises(NeedsOrder):
        abs(a)
    assert a != b
    x, y = number(Rational, Fraction(-1, 3)), number(Rational, Fraction(-1, 4))
    assert x < y
    assert x <= x
    assert y > x
    assert y >= -0.25
    assert x < 0
    assert abs(x) == Fraction(1, 3)


def test_the_absolute_value_carries_the_slope():
    assert parts(abs(number(Rational, -2, 5))) == (2, -5)
    assert parts(abs(number(Rational, 2, 5))) == (2, 5)


# arrays


@both
def test_arrays_are_drawn_lifted_and_stilled(kind):
    world = Unknown(0)
    moving = exact.draw((2, 3), kind, world, moving=True)
    assert moving.shape == (2, 3)
    assert any(n.slope != 0 for n in moving.flat)
    still = exact.still(moving)
    assert np.all(still == moving)
    assert all(n.slope == 0 for n in still.flat)
    mixed = np.array([moving[0, 0], 0.5, 2], object)
    lifted = exact.lift(mixed, kind, world)
    assert lifted[0] is mixed[0]
    assert [lifted[1] == 0.5, lifted[2] == 2] == [True, True]
    assert exact.draw((), kind, world).shape == ()
    assert exact.draw((0, 2), kind, world).shape == (0, 2)


def test_rational_draws_lie_where_they_are_wanted():
    drawn = exact.draw((300,), Rational, Unknown(0), 0.1, 2.0)
    assert all(Fraction(0.1) < n.value < 2 for n in drawn)


# proofs: what is right passes


def graph(build, **shapes):
    net = mg.Builder(getattr(build, "__name__", "graph"))
    made = build(*(net.input(name, shape) for name, shape in shapes.items()))
    outputs = made if isinstance(made, tuple) else (made,)
    return net.build({f"y{i}": y for i, y in enumerate(outputs)})


def same(before, after, low=-2.0, **shapes):
    return proof.prove_same(
        graph(before, **shapes), graph(after, **shapes), {n: Sample(s, low=low) for n, s in shapes.items()}
    )


CONV = {"x": (2, 2, 3, 3), "w": (3, 2, 2, 2), "gamma": (3,), "beta": (3,), "mean": (3,), "var": (3,)}


def unfolded(x, w, gamma, beta, mean, var):
    return mg.batch_norm_inference(mg.conv(x, w), gamma, beta, mean, var)


def folded(x, w, gamma, beta, mean, var, wrong=""):
    scale = gamma / mg.sqrt(var if wrong == "eps" else var + 1e-5)
    shift = beta - (mean if wrong == "shift" else mean * scale)
    by_channel = (1, 3, 1, 1) if wrong == "channel" else (3, 1, 1, 1)
    weight = w if wrong == "weight" else w * mg.reshape(scale, by_channel)
    return mg.conv(x, weight) + mg.reshape(shift, (1, 3, 1, 1))


def test_a_right_fold_is_proved():
    assert same(unfolded, folded, **CONV) is Modular


@pytest.mark.parametrize("wrong", ["eps", "shift", "weight"])
def test_a_wrong_fold_is_refuted(wrong):
    with pytest.raises(proof.Refuted, match="'y0' differs between 'unfolded' and 'graph'"):
        same(unfolded, partial(folded, wrong=wrong), **CONV)


def test_a_scale_on_the_wrong_channels_is_refuted():
    shapes = {**CONV, "x": (1, 3, 3, 3), "w": (3, 3, 2, 2)}
    assert same(unfolded, folded, **shapes) is Modular
    with pytest.raises(proof.Refuted):
        same(unfolded, partial(folded, wrong="channel"), **shapes)


def test_a_bias_before_batch_norm_moves_only_the_mean():
    def biased(x, b):
        y, mean, var = mg.batch_norm(x + b, np.ones(3), np.zeros(3))
        return y, mean, var

    def plain(x, b):
        y, mean, var = mg.batch_norm(x, np.ones(3), np.zeros(3))
        return y, mean + b, var

    def forgotten(x, b):
        return mg.batch_norm(x, np.ones(3), np.zeros(3))

    assert same(biased, plain, x=(4, 3), b=(3,)) is Modular
    with pytest.raises(proof.Refuted, match="'y1' differs"):
        same(biased, forgotten, x=(4, 3), b=(3,))


def test_where_order_matters_fractions_serve():
    assert same(lambda x: mg.relu(mg.relu(x)), lambda x: mg.relu(x), x=(5,)) is Rational
    assert same(lambda x: mg.max_pool(mg.relu(x), 2), lambda x: mg.relu(mg.max_pool(x, 2)), x=(1, 2, 4, 4)) is Rational
    with pytest.raises(proof.Refuted):
        same(lambda x: mg.relu(x), lambda x: x, x=(5,))
    with pytest.raises(proof.Refuted):
        same(lambda x: mg.max_pool(-x, 2), lambda x: -mg.max_pool(x, 2), x=(1, 2, 4, 4))
    # a side condition that holds of what is drawn
    assert same(lambda x: mg.relu(x), lambda x: x, low=0.1, x=(5,)) is Rational


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda x: mg.exp(x) * mg.exp(x), lambda x: mg.exp(x + x)),
        (lambda x: x * 0.1 * 10.0, lambda x: x),
        (lambda x: mg.sum(x, 0), lambda x: mg.sum(x, 1)),
        (lambda x: mg.transpose(x), lambda x: x),
        (lambda x: mg.sqrt(x + 1e-5), lambda x: mg.sqrt(x)),
        (lambda x: mg.mean(x), lambda x: mg.sum(x) / 8.0),
        (lambda x: mg.softmax(x, 0), lambda x: mg.softmax(x, 1)),
        (lambda x: mg.cast(x < 0.5, "float32"), lambda x: mg.cast(x < 0.0, "float32")),
    ],
    ids=["functional equation", "rounding", "axis", "transpose", "eps", "count", "softmax axis", "threshold"],
)
def test_wrong_claims_are_refuted(before, after):
    with pytest.raises(proof.Refuted):
        same(before, after, low=0.1, x=(3, 3))


def test_a_claim_that_is_wrong_in_a_corner_is_refuted():
    # one draw of one number meets the corner with a chance of 1/4
    with pytest.raises(proof.Refuted):
        same(lambda x: mg.where(x > 1.0, x * 2.0, x), lambda x: x, x=())


def test_a_gradient_that_is_wrong_in_a_corner_is_refuted(register):
    rule = lambda gs, xs, ys: (gs[0],)
    bent = register("bent", lambda x, /: x, lambda x: np.where(x > 1, x + x, x), rule)
    with pytest.raises(proof.Refuted):
        prove(bent, x=())


def test_updates_are_compared_as_outputs_are():
    def counted(by):
        net = mg.Builder()
        x, total = net.input("x", ()), net.variable("total", (), mg.init.zeros)
        net.update(total, total + by * x)
        return net.build(y=x)

    samples = {"x": Sample(()), "total": Sample(())}
    assert proof.prove_same(counted(1.0), counted(1.0), samples) is Modular
    with pytest.raises(proof.Refuted):
        proof.prove_same(counted(1.0), counted(2.0), samples)


def test_outputs_of_another_shape_are_refuted():
    with pytest.raises(proof.Refuted):
        same(lambda x: x + 0.0, lambda x: mg.broadcast_to(x, (2, 3)), x=(1, 3))


def test_a_lost_output_is_refuted():
    with pytest.raises(proof.Refuted, match="y1"):
        same(lambda x: (x, x + 1), lambda x: x, x=(3,))


# gradients


def prove(build, low=-2.0, **shapes):
    return proof.prove_gradient(graph(build, **shapes), {n: Sample(s, low=low) for n, s in shapes.items()})


def test_the_gradient_of_batch_norm_is_proved():
    assert prove(mg.batch_norm, x=(4, 3), gamma=(3,), beta=(3,)) is Modular


def norm_rule(wrong):
    def rule(gs, xs, ys, axis, eps):
        x, gamma, _ = xs
        _, mean, var = ys
        sigma, n = mg.sqrt(var + eps), x.shape[0]
        unit = (x - mean) / sigma
        g = gs[0]
        dbeta, dgamma = mg.sum(g, 0), mg.sum(g * unit, 0)
        inner = g
        if wrong != "mean":
            inner = inner - dbeta / float(n)
        if wrong != "variance":
            inner = inner - unit * dgamma / float(n - 1 if wrong == "unbiased" else n)
        dx = inner * gamma / (mg.sqrt(var) if wrong == "eps" else sigma)
        if wrong == "sign":
            dbeta = -dbeta
        return dx, None if wrong == "gamma" else dgamma, dbeta

    return rule


@pytest.mark.parametrize("wrong", ["", "mean", "variance", "unbiased", "eps", "sign", "gamma"])
def test_a_batch_norm_gradient_that_forgets_a_term_is_refuted(register, wrong):
    original = op.OPS["batch_norm"]
    norm = register(
        "norm",
        original.types,
        original.reference,
        norm_rule(wrong),
        canonical=original.canonical,
        outputs=("y", "mean", "var"),
    )
    build = lambda x, gamma, beta: norm(x, gamma, beta)[0]
    if not wrong:
        assert prove(build, x=(4, 3), gamma=(3,), beta=(3,)) is Modular
    else:
        with pytest.raises(proof.Refuted, match=r"the gradient of .* is wrong"):
            prove(build, x=(4, 3), gamma=(3,), beta=(3,))


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        (lambda gs, xs, ys: (gs[0] * xs[1], gs[0] * xs[0]), True),
        (lambda gs, xs, ys: (gs[0] * xs[0], gs[0] * xs[1]), False),
        (lambda gs, xs, ys: (gs[0] * xs[1], None), False),
        (lambda gs, xs, ys: (gs[0] * xs[1], -gs[0] * xs[0]), False),
        (lambda gs, xs, ys: (gs[0] * ys[0] / xs[0], gs[0] * xs[0]), True),
        (lambda gs, xs, ys: (gs[0] * xs[1] * 1.0000001, gs[0] * xs[0]), False),
    ],
)
def test_rules_of_a_product(register, rule, right):
    product = register("product", lambda x, y, /: x, lambda x, y: x * y, rule)
    if right:
        assert prove(product, x=(3,), y=(3,)) is Modular
    else:
        with pytest.raises(proof.Refuted):
            prove(product, x=(3,), y=(3,))


def test_rules_where_order_matters(register):
    def rule(gs, xs, ys):
        return (mg.where(xs[0] > 0, gs[0], gs[0] * 0.25),)

    leaky = lambda low: lambda x: np.where(x > 0, x, x * low)
    right = register("leaky", lambda x, /: x, leaky(0.25), rule)
    wrong = register("leakier", lambda x, /: x, leaky(0.5), rule)
    assert prove(right, x=(8,)) is Rational
    with pytest.raises(proof.Refuted):
        prove(wrong, x=(8,))


def test_gradients_of_gradients_are_proved():
    def slope(x, w, seed):
        return tuple(mg.gradient(mg.sigmoid(x @ w), [x, w], seed))

    assert prove(slope, x=(2, 3), w=(3, 2), seed=(2, 2)) is Modular


def test_a_graph_of_an_example_has_its_inputs_and_outputs():
    made, samples = proof.graph_of(op.OPS["batch_norm"], op.Example(real(4, 3), positive(3), real(3), eps=0.1))
    assert [str(v) for v in (made.inputs[0].type, *(v.type for v in made.outputs.values()))] == [
        "float32[4, 3]",
        "float32[4, 3]",
        "float32[3]",
        "float32[3]",
    ]
    assert samples["x1"].low == 0.1


def test_a_graph_without_a_float_output_has_no_gradient_to_prove():
    with pytest.raises(GraphError):
        prove(lambda x: x < 0.0, x=(3,))


def test_a_proof_that_never_leaves_the_poles_says_so():
    with pytest.raises(GraphError, match="no inputs were found"):
        same(lambda x: 1.0 / (x - x), lambda x: 2.0 / (x - x), x=(1,))


def test_a_reference_may_use_functions_of_scalars(register):
    scaled = register(
        "scaled",
        lambda s, x, /: x,
        lambda s, x: exp(s) * x,
        lambda gs, xs, ys: (mg.sum(gs[0] * ys[0]), gs[0] * mg.exp(xs[0])),
    )
    assert same(lambda s, x: scaled(s, x), lambda s, x: mg.exp(s) * x, s=(), x=(3,)) is Modular
    assert prove(scaled, s=(), x=(3,)) is Modular
