"""Fashion-MNIST, 28 x 28 pixels in ten classes: a network with batch norm, in a few minutes on a laptop's CPU.

    python examples/train_fashion_mnist.py --download

The data are four files, of 60,000 training and 10,000 test images (Xiao, Rasul and Vollgraf 2017, MIT license). They
are taken from the folder that --data names, or else from Debian's package dataset-fashion-mnist where it is installed;
--download fetches them into the folder first. 5,000 of the training images choose among the epochs; the test images
are read once, at the end. Leaves the best weights, curves and a picture of the graph in out/fashion_mnist.
"""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
from pathlib import Path

import numpy as np
from training import (  # type: ignore[import-not-found]  # the file beside this one
    arguments,
    friendly,
    leave_pictures,
    one_cycle,
    report,
)

import minigraph as mg
from minigraph import layers

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# name -> SHA-256 of the content, unpacked: packages pack the same content anew, so their .gz files differ
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def network() -> mg.Graph:
    net = mg.Builder("fashion_mnist")
    image = net.input("image", ("N", 1, 28, 28), "uint8")
    label = net.input("label", ("N",), "int64")
    h = mg.cast(image, "float32") / 255
    for channels in (8, 32, 64):
        h = layers.conv2d(h, channels, 3, padding="same", bias=False)  # batch norm's beta is the bias
        h = mg.relu(layers.batch_norm(h))
        h = mg.max_pool(h, 2)
    logits = layers.linear(mg.flatten(h), 10)
    return net.build(logits=logits, loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def read_idx(path: Path) -> np.ndarray:
    """A file in the IDX format: two zero bytes, a type (8 is uint8), the number of axes, the sizes, the numbers."""
    packed = path.with_name(path.name + ".gz")
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * rank + shape.prod():
        raise mg.GraphError(f"{packed if packed.exists() else path} is not an IDX file of bytes, or not whole")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def find(folder: Path) -> None:
    """Raise GraphError unless the folder has all four files, packed or not."""
    missing = [n for n in FILES if not (folder / n).exists() and not (folder / f"{n}.gz").exists()]
    if missing:
        raise mg.GraphError(
            f"{folder} lacks {', '.join(missing)} (also as .gz). --download fetches them, --data names a folder that"
            " has them, and on Debian and Ubuntu there is the package dataset-fashion-mnist"
        )


def download(folder: Path) -> None:
    """Fetch what is not in the folder yet. A file whose content is not what it should be is not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in FILES.items():
        if not (folder / f"{name}.gz").exists():
            print(f"fetching {ADDRESS}/{name}.gz", flush=True)
            with urllib.request.urlopen(f"{ADDRESS}/{name}.gz", timeout=60) as answer:
                packed = answer.read()
            found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
            if found != digest:
                raise mg.GraphError(
                    f"{name} from {ADDRESS} has the SHA-256 {found}, not {digest}: it was changed, or cut off"
                )
            (folder / f"{name}.gz").write_bytes(packed)


def read(folder: Path, part: str) -> dict[str, np.ndarray]:
    """Images (N, 1, 28, 28) and labels (N,) of a part, "train" or "t10k"."""
    images, labels = read_idx(folder / f"{part}-images-idx3-ubyte"), read_idx(folder / f"{part}-labels-idx1-ubyte")
    return {"image": images[:, np.newaxis], "label": labels.astype(np.int64)}


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
    train = mg.compile(mg.training_step(model, loss="loss", optimizer=optimizer), state, options.backend)
    check = mg.compile(mg.inference(model, outputs=["loss", "accuracy"]), state, options.backend)

    checkpoint = options.out / "checkpoint.safetensors"
    run = mg.fit(
        train,
        train_data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        validation=(check, valid_data),
        best=("val_accuracy", "max"),
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
