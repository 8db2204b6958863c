"""Programs on a GPU: whether they are right, and how fast beside others, in stages of less than eight minutes each.

    python -m benchmarks.gpu STAGE [--out FOLDER] [--only WORD ...]

    right      the tests of CUDA C++ on the GPU, counted (pytest --gpu; needs pytest, hypothesis and onnx): own kernels,
               and what cuDNN and cublasLt compute, as far as they are installed
    steps      captured steps against those that are launched one by one; replays in memory that is spoilt between them;
               a curve of training, running statistics, small eps, odd channels and batch 1 beside NumPy or C; TF32,
               float16 and bfloat16
    training   milliseconds of training steps beside PyTorch, eager and compiled, and JAX, as far as they are installed
    inference  the same of answers
    resnet9    the same of a small residual network of the kind with which CIFAR-10 is trained in seconds
    fashion    seconds of training until 92 % of Fashion-MNIST's test images are right (--data FOLDER; without it, where
               examples/train_fashion_mnist.py finds them)

A stage writes FOLDER/STAGE.json (by default in out/gpu) as it goes, and prints a table at its end. What is missing or
fails is a sentence in its row, and the rest goes on. The most telling rows come first, and where time is short the last
go without what compiles for long. --only takes the parts whose names have one of these words, as "resnet20" or
"float16", or those that lack something; the file is called after them, too. `minigraph doctor --gpu` says what the
machine lacks.

All programs of a row run in one process and take turns; times are medians of rounds, at whose end alone each of them
waits for the GPU. A row is in TF32 or in float16, with all of them.

Where cuDNN and cublasLt are installed, minigraph asks them; MINIGRAPH_GPU_LIBRARIES=none shows its own kernels beside.

The exit status is 1 where something does not hold or fails, 0 otherwise, however slow it is.

NVIDIA's tool finds kernels that read or write beside their arrays, read what nobody wrote, or race in shared memory; on
small networks, slowly (also with --tool initcheck and --tool racecheck):

    compute-sanitizer --error-exitcode 2 python -m benchmarks.gpu steps --only "captured small" "like NumPy"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.on_gpu import networks
from benchmarks.on_gpu.fashion import fashion
from benchmarks.on_gpu.report import Report
from benchmarks.on_gpu.right import right
from benchmarks.on_gpu.speed import measure
from benchmarks.on_gpu.steps import steps
from minigraph.backends.cupy import device as gpu

STAGES: dict[str, Callable[[Report], None]] = {
    "right": right,
    "steps": steps,
    "training": partial(measure, cases=networks.TRAINING, training=True),
    "inference": partial(measure, cases=networks.INFERENCE, training=False),
    "resnet9": partial(measure, cases=networks.RESNET9, training=True),
}


def main() -> None:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", metavar="STAGE", choices=[*STAGES, "fashion"], help=", ".join([*STAGES, "fashion"]))
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("out/gpu"), help="for the JSON (out/gpu)")
    parser.add_argument("--only", metavar="WORD", nargs="+", default=[], help="the parts that have one of these words")
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="with the four files of Fashion-MNIST")
    options = parser.parse_args()
    try:
        gpu.device()
    except gpu.NoGpu as error:
        sys.exit(f"{error}. `minigraph doctor --gpu` says more.")
    report = Report(options.stage, options.out, options.only)
    if options.stage == "fashion":
        fashion(report, options.data)
    else:
        STAGES[options.stage](report)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
