"""Summaries: their numbers against counts by hand and against what papers and other frameworks report."""

import pytest
from test_draw import lenet

import minigraph as mg
from minigraph import layers
from minigraph.core import dim
from minigraph.tools.summary import number_text, summary


def block(x: mg.Tensor, channels: int, stride: int, projection: bool) -> mg.Tensor:
    """A basic block of He et al. 2016. The shortcut that halves the image is a projection (option B) or zeros (A)."""
    y = layers.conv2d(x, channels, 3, stride=stride, padding=1, bias=False)
    y = layers.conv2d(mg.relu(layers.batch_norm(y)), channels, 3, padding=1, bias=False)
    y = layers.batch_norm(y)
    if stride > 1 and projection:
        x = layers.batch_norm(layers.conv2d(x, channels, 1, stride=stride, bias=False))
    elif stride > 1:
        new = channels // 4  # on either side of the channels // 2 that there are
        x = mg.pad(mg.max_pool(x, 1, stride=2), ((0, 0), (new, new), (0, 0), (0, 0)))
    return mg.relu(y + x)


def resnet18() -> mg.Graph:
    net = mg.Builder("resnet18")
    h = net.input("image", ("N", 3, 224, 224))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, 64, 7, stride=2, padding=3, bias=False)))
    h = mg.max_pool(h, 3, stride=2, padding=1)
    for i, channels in enumerate((64, 128, 256, 512)):
        for j in range(2):
            with net.scope(f"layer{i + 1}.{j}"):
                h = block(h, channels, 2 if i and not j else 1, projection=True)
    return net.build(logits=layers.linear(mg.global_avg_pool(h), 1000))


def resnet20(projection: bool) -> mg.Graph:
    net = mg.Builder("resnet20")
    h = net.input("image", ("N", 3, 32, 32))
    h = mg.relu(layers.batch_norm(layers.conv2d(h, 16, 3, padding=1, bias=False)))
    for i, channels in enumerate((16, 32, 64)):
        for j in range(3):
            h = block(h, channels, 2 if i and not j else 1, projection)
    return net.build(logits=layers.linear(mg.global_avg_pool(h), 10))


def test_lenet_by_hand():
    found = summary(lenet())
    parameters = {row.name: row.parameters for row in found.rows if row.parameters}
    assert parameters == {
        "conv1": 32 * 1 * 25 + 32, "bn1": 64, "conv2": 64 * 32 * 25 + 64, "bn2": 128, "linear1": 10 * 3136 + 10,
    }  # fmt: skip
    assert found.parameters == 83_658
    assert found.numbers == {"parameter": 83_658, "statistic": 2 * 32 + 2 * 64}
    conv = next(row for row in found.rows if row.name == "conv1")
    assert number_text(conv.flops["forward"]) == f"{2 * 25 * 32 * 784 + 32 * 784:,}*N"  # the last is the bias
    linear = next(row for row in found.rows if row.name == "linear1")
    assert dim.bind(linear.flops["forward"], {"N": 7}) == 7 * (2 * 3136 * 10 + 10)


def test_resnet20_has_the_parameters_of_its_paper():
    # Table 6 of He et al. 2016 says 0.27M, for shortcuts of zeros; without the two projections it is 269,722.
    assert summary(resnet20(projection=False)).parameters == 269_722
    # The projections are 32 x 16 and 64 x 32, with batch norms of 2 x 32 and 2 x 64.
    assert summary(resnet20(projection=True)).parameters == 269_722 + 512 + 64 + 2048 + 128 == 272_474


def test_resnet18_has_the_size_that_is_known():
    found = summary(mg.inference(resnet18()), N=1)
    assert found.parameters == 11_689_512
    assert found.numbers["statistic"] == 9_600
    # 1.82 G multiply-adds are reported for one image; what is around the convolutions is counted in various ways.
    assert found.flops["forward"] == pytest.approx(2 * 1.82e9, rel=0.02)


def test_symbols_stay_unless_they_are_given():
    graph = lenet()
    assert "N×32×28×28" in str(summary(graph))
    assert "64×32×28×28" in str(summary(graph, N=64))
    left, right = summary(graph).flops["forward"], summary(graph, N=64).flops["forward"]
    assert dim.bind(left, {"N": 64}) == right
    net = mg.Builder("two")
    two = net.build(y=mg.relu(net.input("x", ("N", "L"))))
    assert number_text(summary(two, L=10).flops["forward"]) == f"{summary(two, L=10, N=1).flops['forward']}*N"


def test_a_training_step_has_a_column_for_each_role():
    step = mg.training_step(lenet(), "loss", mg.optim.Adam(1e-3), trainable=["linear1.*", "conv2.*"])
    found = summary(step, N=8)
    assert set(found.flops) == {"forward", "backward", "statistic", "update"}
    assert found.numbers["slot"] == 2 * found.trained
    assert found.trained == 31_370 + 51_200  # but for the bias of conv2, which a batch norm takes off again
    assert "parameters 83,658 (82,570 trained), statistics 192, optimizer slots 165,140" in str(found)
    rows = {row.name: row for row in found.rows}
    conv = rows["conv2"]
    # the gradients of image and weight cost one convolution each, and nothing before conv2 needs one of its image
    assert conv.flops["backward"] == pytest.approx(conv.flops["forward"], rel=0.01)  # less the bias, and its gradient
    assert "backward" not in rows["conv1"].flops
    assert "update" not in rows["bn2"].flops
    assert sum(row.flops.get("backward", 0) for row in found.rows) == found.flops["backward"]


def test_the_table_is_aligned():
    lines = str(summary(mg.training_step(lenet(), "loss", mg.optim.SGD(0.1)), N=64)).splitlines()
    assert lines[0] == f"lenet: {lines[0].split()[1]} nodes, N = 64"
    table = lines[2 : lines.index("", 2)]
    header, rule, *rows, below, total = table
    assert header.split() == [
        "layer",
        "ops",
        "output",
        "parameters",
        "FLOPs",
        "forward",
        "FLOPs",
        "backward",
        "FLOPs",
        "statistic",
        "FLOPs",
        "update",
    ]
    assert rule == below == "-" * max(map(len, table))
    end = header.index("parameters") + len("parameters")
    for line in (*rows, total):
        assert line[end : end + 2].strip() == ""
    assert total.startswith("total")
    assert {line.split()[0] for line in rows} >= {"conv1", "bn1", "relu", "cross_entropy", "optimizer"}


def test_every_layer_is_one_row_and_shared_weights_count_once():
    net = mg.Builder("twins")
    ends = []
    for side in ("left", "right"):
        with net.scope("tower", share=True):
            ends.append(layers.linear(net.input(side, ("N", 4)), 2))
    found = summary(net.build(y=ends[0] - ends[1]), N=1)
    assert [(row.name, row.parameters) for row in found.rows] == [
        ("tower.linear1", 10), ("tower.linear1 (use 2)", 0), ("sub", 0),
    ]  # fmt: skip
    assert found.flops == {"forward": 2 * (2 * 4 * 2 + 2) + 2}


def test_a_graph_of_nothing():
    found = summary(mg.Builder("nothing").build())
    assert (found.rows, found.parameters, found.flops) == ((), 0, {})
    assert str(found).startswith("nothing: 0 nodes\n")


def test_sizes_that_are_none_are_refused():
    with pytest.raises(mg.GraphError, match=r"'lenet' has no size 'M'; known at run time are N"):
        summary(lenet(), M=3)
    with pytest.raises(mg.GraphError, match=r"the size N is a number of 0 or more, not -1"):
        summary(lenet(), N=-1)
    with pytest.raises(mg.GraphError, match=r"summary needs a Graph, such as program\.graph, not a str"):
        summary("lenet")  # type: ignore[arg-type]
    assert mg.summary is summary
