"""Fashion-MNIST, 28 x 28 pixels in ten classes: a network with batch norm, in a few minutes on a laptop's CPU.

    python examples/train_fashion_mnist.py --download

The data are taken from the folder that --data names, or else from Debian's package dataset-fashion-mnist where it is
installed; --download fetches them first. 5,000 of the 60,000 training images choose among the epochs; the 10,000 test
images are read once, at the end. Leaves the best weights, curves and a picture of the graph in out/fashion_mnist.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import minigraph as mg
from fashion_mnist import DEBIAN, download, find, read
from minigraph import layers
from training import arguments, friendly, leave_pictures, one_cycle, report


def network() -> mg.Graph:
    net = mg.Builder("fashion_mnist")
    image = net.input("image", ("N", 1, 28, 28), "uint8")
    label = net.input("label", ("N",), "int64")
    h = mg.cast(image, "float32") / 255
    for channels in (16, 32, 64):
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)  # batch norm's beta is the bias
        h = mg.relu(layers.batch_norm(h))
        h = mg.max_pool(h, 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def main() -> None:
    parser = arguments(__doc__.split("\n")[0], epochs=5, batch_size=64, lr=4e-3, out="out/fashion_mnist")
    parser.add_argument("--data", type=Path, help=f"folder of the four files (default: {DEBIAN}, or else out/data)")
    parser.add_argument("--download", action="store_true", help="fetch the files into the folder first, about 30 MB")
    options = parser.parse_args()
    folder = options.data or (DEBIAN if DEBIAN.is_dir() and not options.download else Path("out/data"))
    if options.download:
        download(folder)
    find(folder)

    data = read(folder, "train")
    order = np.random.default_rng(options.seed).permutation(len(data["label"]))
    kept = len(order) // 12  # 5,000 images choose among the epochs
    valid_data, train_data = (
        {name: array[part] for name, array in data.items()} for part in (order[:kept], order[kept:])
    )
    model = network()
    state = model.init(options.seed)
    steps = options.epochs * -(-len(train_data["label"]) // options.batch_size)
    optimizer = mg.optim.AdamW(one_cycle(options.lr, steps), weight_decay=0.05)
    step = mg.training_step(model, loss="loss", optimizer=optimizer, precision=options.precision)
    answer = mg.inference(model, outputs=["loss", "accuracy"], precision=options.precision)
    train, check = (mg.compile(graph, state, options.backend) for graph in (step, answer))

    checkpoint = options.out / "checkpoint.safetensors"
    run = mg.fit(
        train,
        train_data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        validation=(check, valid_data),
        best=("val_loss", "min"),
        best_file=options.out / "best.safetensors",
        checkpoint=checkpoint,
        checkpoint_every=100,
        on_epoch=report,
    )
    state.load(options.out / "best.safetensors")
    test_data = read(folder, "t10k")
    test = mg.evaluate(check, test_data, options.batch_size)
    checkpoint.unlink()  # the training is complete: the next one begins anew
    print(f"{len(test_data['label']):,} test images: {test['accuracy']:.2%} right. Files are in {options.out}.")
    leave_pictures(options.out, model, run.history)


if __name__ == "__main__":
    friendly(main)
