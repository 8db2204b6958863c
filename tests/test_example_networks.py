"""The networks in examples/networks: as large as their papers say, and each trains, answers, is kept and is drawn."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from example_networks import networks

import minigraph as mg
from minigraph.tools.dot import dot

CLASSES, BATCH = 4, 3

# Parameters at full size. Those of the ImageNet networks are the well-known numbers of PyTorch's model zoo.
FULL: dict[str, tuple[Callable[[], mg.Graph], int]] = {
    "mlp": (networks.mlp, 266_610),
    "lenet": (networks.lenet, 61_706),
    "lenet with batch norm": (lambda: networks.lenet(batch_norm=True), 61_728),
    "vgg_small": (networks.vgg_small, 4_660_106),
    "resnet20": (networks.resnet20, 269_722),
    "resnet18": (networks.resnet18, 11_689_512),
    "resnet34": (networks.resnet34, 21_797_672),
    "resnet50": (networks.resnet50, 25_557_032),
    "wide_resnet": (networks.wide_resnet, 36_479_194),
    "mobilenet_v2": (networks.mobilenet_v2, 3_504_872),
    "densenet_bc": (networks.densenet_bc, 769_162),
    "unet": (networks.unet, 31_036_546),
    "cnn1d": (networks.cnn1d, 265_482),
}

# Other members of the families, in the millions that their papers print.
PRINTED: dict[str, tuple[Callable[[], mg.Graph], float, int]] = {
    **{
        f"resnet{depth}": (lambda depth=depth: networks.resnet_cifar(depth), millions, 2)  # type: ignore[misc]
        for depth, millions in ((20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73))
    },
    **{
        f"wide_resnet{depth}-{widen}": (
            lambda depth=depth, widen=widen: networks.wide_resnet(depth, widen),  # type: ignore[misc]
            millions,
            1,
        )
        for depth, widen, millions in ((40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (28, 10, 36.5))
    },
    "densenet_bc100-12": (networks.densenet_bc, 0.8, 1),
    "densenet_bc250-24": (lambda: networks.densenet_bc(250, 24), 15.3, 1),
    "densenet_bc190-40": (lambda: networks.densenet_bc(190, 40), 25.6, 1),
}

TINY: dict[str, Callable[[], mg.Graph]] = {
    "mlp": lambda: networks.mlp(CLASSES, size=4, widths=(6, 5), dropout=0.2),
    "lenet": lambda: networks.lenet(CLASSES, size=16, channels=(3, 4), widths=(6,)),
    "lenet with batch norm": lambda: networks.lenet(CLASSES, size=16, channels=(3, 4), widths=(6,), batch_norm=True),
    "vgg_small": lambda: networks.vgg_small(CLASSES, size=8, width=4, dropout=0.2),
    "resnet20": lambda: networks.resnet20(CLASSES, size=8, width=4),
    "resnet18": lambda: networks.resnet18(CLASSES, size=32, width=4),
    "resnet34": lambda: networks.resnet34(CLASSES, size=32, width=4),
    "resnet50": lambda: networks.resnet50(CLASSES, size=32, width=4),
    "wide_resnet": lambda: networks.wide_resnet(10, 2, CLASSES, size=8, width=4, dropout=0.3),
    "mobilenet_v2": lambda: networks.mobilenet_v2(CLASSES, size=32, width=0.125),
    "densenet_bc": lambda: networks.densenet_bc(16, 3, CLASSES, size=8),
    "unet": lambda: networks.unet(CLASSES, size=8, width=3, depth=2),
    "cnn1d": lambda: networks.cnn1d(CLASSES, length=9, channels=2, widths=(5, 4), windows=(4, 3)),
}

OPTIMIZERS = {
    "SGD": mg.optim.SGD(0.01),
    "momentum": mg.optim.SGD(0.01, momentum=0.9),
    "Nesterov": mg.optim.SGD(0.01, momentum=0.9, nesterov=True),
    "RMSprop": mg.optim.RMSprop(0.001),
    "Adam": mg.optim.Adam(0.001),
    "AdamW": mg.optim.AdamW(0.001),
}


@cache
def tiny(name: str) -> mg.Graph:
    return TINY[name]()


def sizes(value: mg.Value) -> tuple[int, ...]:
    """Of all axes but the batch."""
    return tuple(n for n in value.type.shape[1:] if isinstance(n, int))


def batch(model: mg.Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    data, label = model.inputs
    return {
        data.name: rng.normal(size=(BATCH, *sizes(data))),
        label.name: rng.integers(0, CLASSES, (BATCH, *sizes(label))),
    }


def test_every_network_has_its_tests():
    functions = {getattr(networks, name) for name in networks.__all__}
    assert functions == {make for make, _ in FULL.values()} & functions | {networks.resnet_cifar}
    assert TINY.keys() == FULL.keys()


@pytest.mark.parametrize("name", FULL)
def test_at_full_size_it_is_whole_and_has_as_many_parameters_as_its_docstring_says(name):
    make, parameters = FULL[name]
    model = make()
    assert model.check() is model
    assert list(model.outputs) == ["logits", "loss", "accuracy"]
    assert mg.summary(model).parameters == parameters
    documented = getattr(networks, name.split()[0])
    assert f"{parameters:,}" in documented.__doc__
    again = mg.parse(str(model))
    assert str(again) == str(model)
    assert again.check() is again


@pytest.mark.parametrize("name", PRINTED)
def test_the_families_have_the_sizes_that_their_papers_print(name):
    make, millions, digits = PRINTED[name]
    assert round(mg.summary(make()).parameters / 1e6, digits) == millions


@pytest.mark.parametrize(("name", "printed"), [("resnet18", 18), ("resnet34", 36), ("mobilenet_v2", 3)])
def test_an_image_takes_as_many_multiply_adds_as_the_paper_says(name, printed):
    # in hundreds of millions, cut off; ResNet-50's 38 are 40 here, where another convolution has the stride
    model = FULL[name][0]().bind(N=1)
    flops: Any = 0
    for node in model.nodes:
        if node.op.name in ("conv", "matmul"):
            flops += node.op.count([v.type for v in node.inputs], [v.type for v in node.outputs], node.attrs)
    assert flops // 2 // 10**8 == printed


@pytest.mark.parametrize("name", TINY)
def test_no_bias_stands_in_front_of_a_batch_norm(name):
    model = tiny(name)
    parameters = {variable.value for variable in model.state if variable.kind == "parameter"}
    made_by = {value: node for node in model.nodes for value in node.outputs}
    norms = [node for node in model.nodes if node.op.name == "batch_norm"]
    assert norms or name in ("mlp", "lenet")
    for norm in norms:
        before = made_by[norm.inputs[0]]
        sources = [made_by[v].inputs[0] if v in made_by and made_by[v].inputs else v for v in before.inputs]
        assert before.op.name != "add" or parameters.isdisjoint(sources), norm.name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", TINY)
def test_one_step_moves_every_parameter(name, optimizer):
    model = tiny(name)
    state = model.init(seed=1)
    before = state.copy()
    train = mg.compile(mg.training_step(model, "loss", OPTIMIZERS[optimizer]), state)
    outputs = train(**batch(model))
    assert np.isfinite(outputs["loss"])
    assert 0 <= outputs["accuracy"] <= 1
    assert all(np.isfinite(array).all() for array in state.values())
    still = [v.name for v in model.state if v.kind != "stream" and np.array_equal(state[v.name], before[v.name])]
    # where a block of MobileNetV2 ends without a ReLU, the next batch norms take off again what beta adds
    linear = ("1.block1.bn2.beta", ".bn3.beta") if name == "mobilenet_v2" else ()
    assert still == [v.name for v in model.state if v.name.endswith(linear)]


@pytest.mark.parametrize("name", TINY)
def test_it_learns_three_examples_by_heart(name):
    model = tiny(name)
    state, data = model.init(seed=1), batch(model)
    train = mg.compile(mg.training_step(model, "loss", mg.optim.Adam(0.01)), state)
    losses = [float(train(**data)["loss"]) for _ in range(8)]
    assert min(losses[-3:]) < losses[0]  # dropout makes each a little uncertain


@pytest.mark.parametrize("name", TINY)
def test_it_answers_the_same_from_a_saved_state_and_for_each_example_alone(name, tmp_path):
    model = tiny(name)
    state, inputs = model.init(seed=1), batch(model)
    mg.compile(model, state)(**inputs)  # running statistics of their own
    source = model.inputs[0].name
    frozen = mg.inference(model, ["logits"])
    assert {"batch_norm", "dropout"}.isdisjoint(node.op.name for node in frozen.nodes)
    logits = mg.compile(frozen, state)(**{source: inputs[source]})["logits"]
    assert logits.shape == (BATCH, CLASSES, *inputs["label"].shape[1:])
    assert np.isfinite(logits).all()

    state.save(tmp_path / "state.safetensors")
    other = model.init(seed=2)
    assert not other.load(tmp_path / "state.safetensors")
    infer = mg.compile(frozen, other)
    np.testing.assert_array_equal(infer(**{source: inputs[source]})["logits"], logits)
    # sums of at most 1280 float32 numbers in another order, through at most 53 layers: 1e-7 * sqrt(1280 * 53) = 3e-5
    alone = np.concatenate([infer(**{source: inputs[source][i : i + 1]})["logits"] for i in range(BATCH)])
    np.testing.assert_allclose(alone, logits, rtol=0, atol=3e-5 * np.abs(logits).max())


@pytest.mark.parametrize("name", TINY)
def test_it_is_drawn_and_put_into_a_table(name):
    model = tiny(name)
    step = mg.training_step(model, "loss", mg.optim.SGD(0.1, momentum=0.9))
    for graph in (model, step, mg.inference(model, ["logits"])):
        source = dot(graph)
        assert source.startswith("digraph minigraph {")
        assert "classifier" in source
        table = mg.summary(graph, N=2)
        assert table.parameters == mg.summary(model).parameters
        assert "classifier" in str(table)


def test_parameters_have_the_names_that_one_would_guess():
    model = networks.resnet18()
    names = [variable.name for variable in model.state]
    assert names[:5] == ["conv1.weight", "bn1.gamma", "bn1.beta", "bn1.running_mean", "bn1.running_var"]
    assert {
        "stage1.block1.conv2.weight",
        "stage2.block1.shortcut_conv.weight",
        "stage4.block2.bn2.running_var",
        "classifier.weight",
        "classifier.bias",
    } <= set(names)


@pytest.mark.parametrize(
    "make",
    [
        lambda: networks.resnet_cifar(21),
        lambda: networks.resnet_cifar(2),
        lambda: networks.wide_resnet(27),
        lambda: networks.wide_resnet(4),
        lambda: networks.densenet_bc(99),
        lambda: networks.densenet_bc(4),
        lambda: networks.unet(size=100),
    ],
)
def test_a_size_that_does_not_fit_is_refused(make):
    with pytest.raises(mg.GraphError, match=r", not \d+$"):
        make()
