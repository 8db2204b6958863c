"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT license): 60,000 training and 10,000 test images of ten classes."""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
import zlib
from pathlib import Path

import numpy as np

import minigraph as mg

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# name -> SHA-256 of the content, unpacked: packages pack the same content anew, so their .gz files differ
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read(folder: Path, part: str) -> dict[str, np.ndarray]:
    """Images (N, 1, 28, 28) and labels (N,) of a part, "train" or "t10k"."""
    images, labels = read_idx(folder / f"{part}-images-idx3-ubyte"), read_idx(folder / f"{part}-labels-idx1-ubyte")
    return {"image": images[:, np.newaxis], "label": labels.astype(np.int64)}


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
        target = folder / f"{name}.gz"
        if target.exists() and checksum(target.read_bytes()) == digest:
            continue
        print(f"fetching {ADDRESS}/{name}.gz", flush=True)
        try:
            with urllib.request.urlopen(f"{ADDRESS}/{name}.gz", timeout=60) as answer:
                packed = answer.read()
        except OSError as error:
            raise mg.GraphError(f"{ADDRESS}/{name}.gz cannot be fetched: {error}") from None
        if checksum(packed) != digest:
            raise mg.GraphError(
                f"{name} from {ADDRESS} has the SHA-256 {checksum(packed)}, not {digest}: it is not whole, or another"
            )
        target.write_bytes(packed)


def checksum(packed: bytes) -> str:
    return hashlib.sha256(unpacked(packed)).hexdigest()


def read_idx(path: Path) -> np.ndarray:
    """A file in the IDX format: two zero bytes, a type (8 is uint8), the number of axes, the sizes, the numbers."""
    packed = path.with_name(path.name + ".gz")
    content = unpacked(packed.read_bytes()) if packed.exists() else path.read_bytes()
    rank = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    numbers = 4 + 4 * rank  # where they begin
    shape = np.frombuffer(content[4:numbers], ">u4") if rank and len(content) >= numbers else np.array([])
    if not len(shape) or len(content) != numbers + shape.prod():
        raise mg.GraphError(f"{packed if packed.exists() else path} is not an IDX file of bytes, or not whole")
    return np.frombuffer(content, np.uint8, offset=numbers).reshape(shape)


def unpacked(content: bytes) -> bytes:
    """What a .gz file holds; nothing if it is none, or not whole."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""
