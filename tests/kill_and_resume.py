"""A small training in a process of its own, for tests that kill it: batch norm, dropout, augmentation, accumulation.

    python tests/kill_and_resume.py FOLDER [MOMENT NUMBER]

FOLDER gets the checkpoint, the file of the best epoch, and `log`, to which each step adds its number when it begins.
MOMENT kills the process inside of the NUMBER-th write of a file: "half" when half of it is on the disk, "written" when
all of it is, "renamed" when it has its name. With "step" it waits in the third step after NUMBER until it is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import minigraph as mg
from minigraph import layers

SAMPLES, BATCH, EPOCHS, EVERY = 100, 8, 3, 4  # 13 batches an epoch, the last one of 4
STEPS = EPOCHS * -(-SAMPLES // BATCH)


def network() -> mg.Graph:
    net = mg.Builder("small")
    x, label = net.input("x", ("N", 6)), net.input("label", ("N",), "int64")
    h = mg.relu(layers.batch_norm(layers.linear(x, 16)))
    logits = layers.linear(layers.dropout(h, 0.2), 3)
    return net.build(loss=mg.cross_entropy(logits, label), accuracy=mg.accuracy(logits, label))


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(SAMPLES, 6)).astype(np.float32)
    return {"x": x, "label": np.argmax(x[:, :3] + x[:, 3:], 1)}


def programs() -> tuple[mg.Program, mg.Program]:
    """The training program and the one that validates, over one fresh state."""
    model = network()
    state = model.init(seed=1)
    step = mg.training_step(model, loss="loss", optimizer=mg.optim.Adam(1e-2), accumulate=2)
    return mg.compile(step, state), mg.compile(mg.inference(model), state)


def noise(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {**batch, "x": batch["x"] + rng.normal(scale=0.1, size=batch["x"].shape).astype(np.float32)}


def train(folder: Path, wait_in: int | None) -> None:
    train, check = programs()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def logged(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        step = int(train.state["random.step"])
        os.write(log, f"{step}\n".encode())
        time.sleep(60 if step == wait_in else 0.002)  # so that a kill from outside finds some steps to hit
        return noise(batch, rng)

    mg.fit(
        train,
        data(),
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=5,
        validation=(check, data()),
        augment=logged,
        best=("val_loss", "min"),
        best_file=folder / "best.safetensors",
        checkpoint=folder / "checkpoint.safetensors",
        checkpoint_every=EVERY,
    )
    os.close(log)


def kill_at(moment: str, number: int) -> None:
    """Let this process be killed inside of its number-th write of a file."""
    fsync, replace, calls = os.fsync, os.replace, {"fsync": 0, "replace": 0}

    def reached(call: str) -> bool:
        calls[call] += 1
        return calls[call] == number

    def killing_fsync(file: int) -> None:
        fsync(file)
        if reached("fsync") and moment in ("half", "written"):
            if moment == "half":
                os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def killing_replace(source: Path, target: Path) -> None:
        replace(source, target)
        if reached("replace") and moment == "renamed":
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync, os.replace = killing_fsync, killing_replace  # type: ignore[assignment]


if __name__ == "__main__":
    moment, number = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) == 4 else ("never", 0)
    kill_at(moment, number)
    train(Path(sys.argv[1]), number + 3 if moment == "step" else None)
