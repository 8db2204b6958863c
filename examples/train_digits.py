"""Handwritten digits, 8 x 8 pixels, that come with scikit-learn: a small network with batch norm, in a few seconds.

    python examples/train_digits.py

A fifth of the 1797 images is held out and read once, at the end. A tenth of the others chooses among the epochs. Leaves
the best weights, the network that answers with them (digits.safetensors), curves and a picture in out/digits.
"""

from __future__ import annotations

import sys

import numpy as np

import minigraph as mg
from minigraph import layers
from training import arguments, friendly, leave_pictures, one_cycle, report

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError:
    sys.exit(
        "The digits come with scikit-learn, which is not there: type  pip install '.[examples]'  beside pyproject.toml"
    )


def network() -> mg.Graph:
    net = mg.Builder("digits")
    image = net.input("image", ("N", 1, 8, 8))  # 0 (paper) to 16 (ink)
    label = net.input("label", ("N",), "int64")
    h = image / 16
    for channels in (32, 64):
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)  # batch norm's beta is the bias
        h = mg.relu(layers.batch_norm(h))
        h = mg.max_pool(h, 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def shift(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Each image moved by up to one pixel each way, with paper where it came from."""
    image = batch["image"]
    wide = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, image.shape[2:], axis=(2, 3))  # (N, 1, 3, 3, 8, 8)
    down, right = rng.integers(0, 3, (2, len(image)))
    return {**batch, "image": windows[np.arange(len(image)), :, down, right]}


def split(seed: int) -> list[dict[str, np.ndarray]]:
    """Training, validation and held-out images, each with the same share of every digit."""
    digits = load_digits()
    images, labels = digits.images[:, np.newaxis].astype(np.float32), digits.target
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    train, valid = train_test_split(rest, test_size=0.1, stratify=labels[rest], random_state=seed)
    return [{"image": images[part], "label": labels[part]} for part in (train, valid, test)]


def main() -> None:
    options = arguments(__doc__.split("\n")[0], epochs=20, batch_size=32, lr=5e-3, out="out/digits").parse_args()
    train_data, valid_data, test_data = split(options.seed)
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
        augment=shift,
        best=("val_loss", "min"),
        best_file=options.out / "best.safetensors",
        checkpoint=checkpoint,
        on_epoch=report,
    )
    state.load(options.out / "best.safetensors")
    mg.save(options.out / "digits.safetensors", mg.inference(model, outputs=["logits"]), state)
    held_out = mg.evaluate(check, test_data)
    checkpoint.unlink()  # the training is complete: the next one begins anew
    print(f"{len(test_data['label'])} held-out images: {held_out['accuracy']:.2%} right. Files are in {options.out}.")
    leave_pictures(options.out, model, run.history)


if __name__ == "__main__":
    friendly(main)
