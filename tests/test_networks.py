"""Random networks over the ops: built, printed, read back, differentiated, trained for a step, frozen, run."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigraph as mg
from minigraph import layers

CLASSES = 3
ACTIVATIONS: dict[str, Callable] = {
    "tanh": mg.tanh,
    "sigmoid": mg.sigmoid,
    "sin": mg.sin,
    "swish": lambda x: x * mg.sigmoid(x),
}
KINKED: dict[str, Callable] = {"relu": mg.relu, "largest": lambda x: mg.where(x < 0.1, x * 0.3, x)}


class Draft:
    """Draws one network, layer by layer; whatever it draws fits."""

    def __init__(self, data, smooth, depth, dtype="float64"):
        self.data, self.smooth = data, smooth
        self.first = data.draw(st.booleans(), label="channels first")
        self.rank = data.draw(st.integers(1, 2), label="spatial axes")
        names = {1: "L", 2: "HW"}[self.rank]
        self.layout = f"NC{names}" if self.first else f"N{names}C"
        self.axis = 1 if self.first else -1
        self.net = mg.Builder("random")
        channels, sizes = self.number(1, 4), [self.number(3, 7) for _ in range(self.rank)]
        shape = ("N", channels, *sizes) if self.first else ("N", *sizes, channels)
        self.h = self.net.input("image", shape, dtype)
        self.label = self.net.input("label", ("N",), "int64")
        for _ in range(self.number(1, depth)):
            getattr(
                self,
                self.one_of(["conv", "pool", "norm", "act", "dropout", "residual", "both", "scale", "crop", "border"]),
            )()
        self.head()

    def number(self, low, high):
        return self.data.draw(st.integers(low, high))

    def one_of(self, choices):
        return self.data.draw(st.sampled_from(choices))

    def yes(self):
        return self.data.draw(st.booleans())

    @property
    def channels(self):
        return self.h.shape[self.axis]

    @property
    def sizes(self):
        return self.h.shape[2:] if self.first else self.h.shape[1:-1]

    def convolve(self, x, channels, **more):
        return {1: layers.conv1d, 2: layers.conv2d}[self.rank](x, channels, layout=self.layout, bias=self.yes(), **more)

    def conv(self):
        groups = self.one_of([g for g in (1, 2, self.channels) if self.channels % g == 0])
        window = [self.number(1, min(3, n)) for n in self.sizes]
        dilation = [self.number(1, 2) if (k - 1) * 2 < n else 1 for k, n in zip(window, self.sizes)]
        stride = [self.number(1, 2) for _ in self.sizes]
        padding = self.one_of(["valid", "same", 1, [(self.number(0, 2), self.number(0, 2)) for _ in self.sizes]])
        self.h = self.convolve(
            self.h,
            groups * self.number(1, 2),
            window=window,
            stride=stride,
            dilation=dilation,
            padding=padding,
            groups=groups,
        )

    def pool(self):
        op = self.one_of([mg.avg_pool] if self.smooth else [mg.avg_pool, mg.max_pool])
        window = [self.number(1, min(3, n)) for n in self.sizes]
        padding = [(self.number(0, k // 2), self.number(0, k // 2)) if k > 1 else (0, 0) for k in window]
        stride = self.one_of([None, 1, [self.number(1, 2) for _ in window]])
        self.h = op(self.h, window, stride=stride, padding=padding, layout=self.layout)

    def norm(self):
        # eps keeps derivatives within what differences can see
        self.h = layers.batch_norm(
            self.h,
            axis=self.axis,
            eps=self.one_of([0.1, 1.0]),
            momentum=self.one_of([0.1, 0.5, None]),
            gamma=self.yes(),
            beta=self.yes(),
            unbiased=self.yes(),
            frozen=self.number(0, 3) == 0,
        )

    def act(self):
        names = list(ACTIVATIONS) if self.smooth else [*ACTIVATIONS, *KINKED]
        self.h = {**ACTIVATIONS, **KINKED}[self.one_of(names)](self.h)

    def dropout(self):
        self.h = layers.dropout(self.h, self.one_of([0.0, 0.25, 0.5]))

    def residual(self):
        branch = self.convolve(mg.tanh(self.h), self.channels, window=self.one_of([1, 3]), padding="same")
        self.h = self.h + branch if self.yes() else branch + self.h

    def both(self):
        self.h = mg.concat([self.h, mg.sin(self.h)], axis=self.axis)

    def scale(self):
        shape = (self.channels, *(1 for _ in self.sizes)) if self.first else (self.channels,)
        with self.net.layer("scale", None):
            weight = self.net.parameter("weight", shape, mg.init.normal(0.3, 1.0), self.h.dtype)
        self.h = self.h * weight if self.yes() else self.h / (weight * weight + 1.0)

    def crop(self):
        if min(self.sizes) > 2:
            ends = [None if i in (0, self.axis % self.h.rank) else -1 for i in range(self.h.rank)]
            self.h = mg.slice(
                self.h, [None] * self.h.rank, ends, [1 if end is None else self.number(1, 2) for end in ends]
            )

    def border(self):
        widths = [
            (0, 0) if i in (0, self.axis % self.h.rank) else (self.number(0, 1), self.number(0, 1))
            for i in range(self.h.rank)
        ]
        self.h = mg.pad(self.h, widths, value=self.one_of([0.0, -0.5]))

    def head(self):
        h = mg.flatten(self.h) if self.yes() else mg.global_avg_pool(self.h, layout=self.layout)
        for _ in range(self.number(0, 2)):
            h = layers.linear(h, self.number(1, 4), bias=self.yes())
            h = mg.tanh(layers.batch_norm(h, eps=0.1) if self.yes() else h)
        self.logits = layers.linear(h, CLASSES)

    def build(self):
        loss = mg.cross_entropy(self.logits, self.label)
        return self.net.build(logits=self.logits, loss=loss, accuracy=mg.accuracy(self.logits, self.label))


def batch(model, n, seed):
    rng = np.random.default_rng(seed)
    shape = (n, *model.inputs[0].type.shape[1:])
    return {"image": rng.normal(size=shape), "label": rng.integers(0, CLASSES, n)}


def reads_back(graph):
    again = mg.parse(str(graph))
    assert str(again) == str(graph)
    assert [v.type for n in again.nodes for v in n.outputs] == [v.type for n in graph.nodes for v in n.outputs]


def passes_through_everything(data, depth):
    model = Draft(data, smooth=False, depth=depth).build()
    text = str(model)
    n = data.draw(st.integers(2, 4), label="batch")
    inputs = batch(model, n, 0)
    optimizer = data.draw(st.sampled_from([mg.optim.SGD(0.01, momentum=0.9), mg.optim.AdamW(mg.optim.cosine(0.01, 9))]))
    step, frozen = mg.training_step(model, "loss", optimizer, clip_norm=1.0), mg.inference(model, ["logits"])
    for graph in (model, step, frozen, model.bind(N=n), step.bind(N=n)):
        assert graph.check() is graph
        reads_back(graph)
    assert not frozen.updates
    assert {node.op.name for node in frozen.nodes}.isdisjoint(
        {"batch_norm", "dropout", "running_average", "random_bits"}
    )

    state = model.init(seed=1)
    fresh = state.copy()
    train = mg.compile(step, state)
    assert train.first_not_finite(**inputs) is None
    assert all(np.array_equal(state[name], fresh[name]) for name in fresh)
    outputs = train(**inputs)
    assert outputs["logits"].shape == (n, CLASSES)
    assert np.isfinite(outputs["loss"])
    assert all(np.isfinite(array).all() for array in state.values())
    assert state["optimizer.step"] == 1

    # what answers treats each image by itself, and moves nothing
    infer, after = mg.compile(frozen, state), state.copy()
    together = infer(image=inputs["image"])["logits"]
    for i in range(n):
        # sums of at most 500 float64 numbers, in another order
        np.testing.assert_allclose(
            infer(image=inputs["image"][i : i + 1])["logits"], together[i : i + 1], rtol=1e-9, atol=1e-10
        )
    assert all(np.array_equal(state[name], after[name]) for name in after)
    assert str(model) == text


def has_the_gradient_of_differences(data, depth):
    model = Draft(data, smooth=True, depth=depth).build().prune(["loss"], updates=False)
    net = mg.Builder.extending(model)
    wrt = [net.tensor("image"), *net.parameters]
    gradients = mg.gradient(net.tensor("loss"), wrt)
    both = net.build({"loss": net.tensor("loss"), **{f"d.{p.name}": g for p, g in zip(wrt, gradients)}})
    reads_back(both)
    inputs, state = batch(model, data.draw(st.integers(2, 4), label="batch"), 3), model.init(seed=2)
    got = {name.removeprefix("d."): array for name, array in mg.compile(both, state, pipeline=())(**inputs).items()}

    rng = np.random.default_rng(4)
    direction = {p.name: rng.normal(size=got[p.name].shape) for p in wrt}
    length = np.sqrt(sum((d * d).sum() for d in direction.values()))
    run = mg.compile(model, moved := state.copy(), pipeline=())  # so that both compute the loss in the same order

    def loss(far):
        for name, d in direction.items():
            if name != "image":
                moved[name] = state[name] + far / length * d
        return float(run(image=inputs["image"] + far / length * direction["image"], label=inputs["label"])["loss"])

    def difference(h):
        return (loss(h) - loss(-h)) / (2 * h)

    # Two central differences leave out h^2: off by h^4 times the fifth derivative, and by 2e-16 / h of rounding. At
    # h = 1e-3 and with derivatives up to 1e6 that is 1e-6; a wrong gradient is off by a part of its own size.
    slope = (4 * difference(5e-4) - difference(1e-3)) / 3
    pulled = sum((got[name] * d).sum() for name, d in direction.items()) / length
    size = np.sqrt(sum((got[p.name] ** 2).sum() for p in wrt))
    assert abs(slope - pulled) <= 1e-6 * (1 + size)
    assert got["loss"] == loss(0.0)


@given(st.data())
def test_random_networks_pass_through_everything(data):
    passes_through_everything(data, depth=6)


@given(st.data())
def test_random_networks_have_the_gradient_of_differences(data):
    has_the_gradient_of_differences(data, depth=6)


@pytest.mark.nightly
@given(st.data())
def test_many_random_networks_pass_through_everything(data):
    passes_through_everything(data, depth=12)


@pytest.mark.nightly
@given(st.data())
def test_many_random_networks_have_the_gradient_of_differences(data):
    has_the_gradient_of_differences(data, depth=12)
