"""What the examples share: their command line, a line for each epoch, and the pictures that a training leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import minigraph as mg
from minigraph.driver.step import PRECISIONS

try:
    from matplotlib.figure import Figure
except ImportError:
    sys.exit(
        "The curves are drawn by matplotlib, which is not there: type  pip install '.[examples]'  beside pyproject.toml"
    )


def arguments(description: str, *, epochs: int, batch_size: int, lr: float, out: str) -> argparse.ArgumentParser:
    """The options that every training has, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--backend", default="auto", help="what computes: cupy, c, numpy, or auto, the fastest that answers"
    )
    parser.add_argument(
        "--precision", choices=[*PRECISIONS], help="of products and what lies between them, in place of float32"
    )
    parser.add_argument("--epochs", type=int, default=epochs, help="how often the training images are gone through")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="images in one step")
    parser.add_argument("--lr", type=float, default=lr, help="the highest learning rate of the schedule")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the first weights, the order of the images")
    parser.add_argument(
        "--out", type=Path, default=Path(out), help="folder for weights, curves and the picture of the graph"
    )
    return parser


def one_cycle(rate: float, steps: int) -> mg.optim.Schedule:
    """A linear rise to `rate` over a fifth of the steps, then half a cosine down to 0."""
    rise = max(1, steps // 5)
    return mg.optim.warmup(rise, mg.optim.cosine(rate, max(1, steps - rise)))


def report(epoch: Mapping[str, float]) -> None:
    print(
        f"epoch {epoch['epoch']:2}: loss {epoch['loss']:.4f}, accuracy {epoch['accuracy']:.2%};"
        f" validation: loss {epoch['val_loss']:.4f}, accuracy {epoch['val_accuracy']:.2%}; {epoch['seconds']:.1f} s",
        flush=True,
    )


def leave_pictures(out: Path, model: mg.Graph, history: Sequence[Mapping[str, float]]) -> None:
    """curves.png and model.svg in the folder `out`."""
    draw_curves(history, out / "curves.png")
    mg.draw(model, out / "model.svg")


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and accuracy by epoch, of training and validation, as a PNG."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")  # no window: a Figure by itself draws with Agg
    epochs = [entry["epoch"] for entry in history]
    for axes, metric, label, unit in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("cross entropy (nats)", "accuracy (% of images)"), (1, 100)
    ):
        axes.plot(epochs, [unit * entry[metric] for entry in history], "o-", label="training (mean over the epoch)")
        axes.plot(epochs, [unit * entry[f"val_{metric}"] for entry in history], "s-", label="validation (after it)")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def friendly(main: Callable[[], None]) -> None:
    """Run a program; what the user can set right, and Ctrl-C, end it with a sentence instead of a traceback."""
    try:
        main()
    except (mg.GraphError, KeyboardInterrupt) as stop:
        sys.exit(f"{stop}")
