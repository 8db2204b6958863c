"""Draw the pictures in this folder anew: python examples/pictures/draw.py

They come out the same but for what another version of Graphviz places differently. resnet20_passes.png shows the page
that this leaves in out/, as Chromium draws it, from a folder in which it is:

    chromium --headless --hide-scrollbars --window-size=1400,1000 --screenshot=examples/pictures/resnet20_passes.png \
        "file://$PWD/out/resnet20_passes.html#3"
"""

from pathlib import Path

import minigraph as mg
from minigraph import layers

HERE = Path(__file__).parent


def lenet() -> mg.Graph:
    net = mg.Builder("LeNet with batch norm")
    image, label = net.input("image", ("N", 1, 28, 28)), net.input("label", ("N",), "int64")
    h = image
    for channels in (32, 64):
        h = layers.conv2d(h, channels, 5, padding="same")
        h = mg.relu(layers.batch_norm(h))
        h = mg.max_pool(h, 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def resnet20() -> mg.Graph:
    net = mg.Builder("ResNet-20")
    image, label = net.input("image", ("N", 3, 32, 32)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.conv2d(image, 16, 3, padding=1, bias=False)))
    for i, channels in enumerate((16, 32, 64)):
        for j in range(3):
            with net.scope(f"stage{i + 1}.block{j + 1}"):
                h = block(h, channels, 2 if i and not j else 1)
    logits = layers.linear(mg.global_avg_pool(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label))


def block(x: mg.Tensor, channels: int, stride: int) -> mg.Tensor:
    y = layers.conv2d(x, channels, 3, stride=stride, padding=1, bias=False)
    y = layers.conv2d(mg.relu(layers.batch_norm(y)), channels, 3, padding=1, bias=False)
    if stride > 1:
        x = layers.batch_norm(layers.conv2d(x, channels, 1, stride=stride, bias=False))
    return mg.relu(layers.batch_norm(y) + x)


def main() -> None:
    model = lenet()
    step = mg.training_step(model, loss="loss", optimizer=mg.optim.SGD(0.1, momentum=0.9))
    answer = mg.inference(model, outputs=["logits"])
    for name, graph in (("lenet_training", step), ("lenet_inference", answer), ("resnet20", resnet20())):
        mg.draw(graph, HERE / f"{name}.svg")
    optimized = mg.optimize(answer, answer.init(0))
    mg.draw(optimized.source, HERE / "lenet_optimized.svg", after=optimized.graph, reasons=optimized.refused)
    answer = mg.inference(resnet20(), outputs=["logits"])
    mg.page(mg.optimize(answer, answer.init(0)), "out/resnet20_passes.html")


if __name__ == "__main__":
    main()
