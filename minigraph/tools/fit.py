"""Training over arrays: epochs, metrics, validation, checkpoints, early stop and a progress bar.

    train = compile(training_step(model, loss="loss", optimizer=Adam(1e-3)), state)
    check = compile(inference(model, outputs=["loss", "accuracy"]), state)
    run = fit(train, {"image": x, "label": y}, epochs=5, batch_size=64, validation=(check, {"image": xv, "label": yv}),
              best=("val_accuracy", "max"), best_file="out/best.safetensors", checkpoint="out/checkpoint.safetensors")
    state.load(run.best.file)

Every output that is a scalar is a metric. It is taken for a mean over the samples of its batch, so a metric of an epoch
is the mean over batches weighted by their samples, summed in float64.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minigraph.backends.cupy.arrays import fetched
from minigraph.backends.cupy.device import OutOfMemory, lies_on_gpu
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph
from minigraph.core.state import Held, State
from minigraph.driver.program import Program
from minigraph.tools import checkpoint as checkpoints
from minigraph.tools.checkpoint import Progress
from minigraph.tools.data import Augment, Batch, Batches, form

STEPS, SECONDS, HELD = 64, 0.2, 1 << 26  # of a window on a GPU: steps and seconds, and bytes of its batches on the host

FileName = str | os.PathLike[str]
Goal = tuple[str, str]  # a metric, and "min" or "max"
Validation = tuple[Program, Mapping[str, Any]]
OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Best:
    """The best epoch (counted from 1) and its metric, and the file with the state after it, if one was asked for."""

    epoch: int
    metric: str
    value: float
    file: Path | None


@dataclass(frozen=True)
class Run:
    """What a training did.

    history: for each epoch a dict of "epoch" (from 1), the metrics of training, those of validation as "val_...", and
        "seconds", validation included. Metrics of training are means over the epoch, while the weights moved.
    best: the best epoch, if `best` was given and its metric was ever a number.
    steps: how many steps the training has made in all; resumed_at: how many of them it had made when this call began.
    """

    history: list[dict[str, float]]
    best: Best | None
    steps: int
    resumed_at: int


class NotFinite(GraphError):
    """A metric or the state became NaN or infinite, by `batch`; `samples` are the indices of its samples."""

    def __init__(self, message: str, batch: Batch, samples: np.ndarray):
        super().__init__(message)
        self.batch, self.samples = batch, samples


def fit(
    program: Program,
    data: Mapping[str, Any],
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    validation: Validation | None = None,
    augment: Augment | None = None,
    drop_last: bool = False,
    best: Goal | None = None,
    best_file: FileName | None = None,
    patience: int | None = None,
    checkpoint: FileName | None = None,
    checkpoint_every: int | None = None,
    resume: bool = True,
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> Run:
    """Run a training step over the data, `epochs` times, in a new order each time. The state is that of the program.

    data: arrays by the names of the program's inputs, the sample along the first axis. A program on a GPU takes them
        there after its first step, if they fit (see Program.put) and nothing augments them; so it does with those of
        the validation. The batches are the same.
    batch_size: in samples. The last batch of an epoch may be shorter; drop_last=True leaves it out. With
        training_step(accumulate=k), k batches make one step of the optimizer, and each batch norm still normalizes a
        batch by itself: its statistics are those of batch_size samples. A group of k may go on into the next epoch.
    seed: of the order and of augmentation; those of a batch follow from the seed, the epoch and its number alone.
    validation: an inference program over the same state, and its data; evaluated after each epoch.
    augment: (batch, generator) -> batch; it gets copies of the arrays.
    best: a metric and "min" or "max". The state after the best epoch so far is written to best_file.
    patience: stop after so many epochs in a row that were not the best.
    checkpoint: a file to go on from, written at the end of each epoch, after every `checkpoint_every` batches of one,
        and on Ctrl-C. Where it is there already, training goes on from it (resume=False begins anew): it ends with the
        same bits as one that was never interrupted, provided that data and augmentation are the same. A checkpoint of
        another training (other graph, sizes of data, batch_size, seed, ...) is an error. `epochs` may be larger than it
        was: then training goes on after the end.
    on_epoch: called with each entry of the history, when the epoch's checkpoint is written.
    progress: a bar with metrics, samples per second and time left, if standard error is a terminal.

    Raises NotFinite for a metric that is NaN or infinite: it names the batch and the first node where it appeared, and
    the state is as it was before that batch. On a GPU the metrics of many steps are read at once, and `augment` may
    have seen batches behind that one.
    """
    batches = Batches.of(_taken(program, data), batch_size, seed, drop_last, augment)
    batches.check_last(program.graph)
    expect(epochs >= 0, "epochs is a number of 0 or more, not {!r}", epochs)
    expect(
        checkpoint_every is None or (checkpoint_every >= 1 and checkpoint is not None),
        "checkpoint_every is a number of 1 or more, and needs checkpoint=FILE",
    )
    _check_validation(program, validation, batch_size)
    _check_best(_names(program, validation), best, best_file, patience)
    check = (validation[0], Batches.of(_taken(*validation), batch_size)) if validation is not None else None
    training = _Training(program, batches, check, best, _path(best_file), _path(checkpoint), checkpoint_every, progress)
    training.begin(resume)
    resumed_at = training.steps
    training.run(epochs, patience, on_epoch)
    history = training.progress.history
    return Run([dict(entry) for entry in history], _best(history, best, training.best_file), training.steps, resumed_at)


def evaluate(program: Program, data: Mapping[str, Any], batch_size: int = 256) -> dict[str, float]:
    """The metrics of a program on all of the data: means over the samples. The program must not change its state."""
    return _evaluated(program, Batches.of(_taken(program, data), batch_size))


def _evaluated(program: Program, batches: Batches) -> dict[str, float]:
    _check_inference(program)
    metrics = _metrics(program.graph)
    expect(metrics, "none of the outputs {} is a scalar", ", ".join(program.graph.outputs))
    order, found = batches.order(0), list[Any]()
    for number in range(len(batches)):
        outputs = program(**batches.batch(order, 0, number))
        found += [outputs[name] for name in metrics]  # a GPU may go on: nobody looks at them yet
    sums, values = dict.fromkeys(metrics, 0.0), iter(fetched(found))
    for number in range(len(batches)):
        samples = len(batches.indices(order, number))
        sums = {name: total + float(next(values)) * samples for name, total in sums.items()}
    return {name: total / batches.used for name, total in sums.items()}


class _Kept:
    """The numbers of a state at one moment, in memory of its own, which serves again for a later moment.

    A snapshot would hold the state's arrays, and the next step would have to go on with others: new memory, which is
    slower to write to, and new places for the program to note. What lies on a GPU is kept there, if there is room.
    """

    def __init__(self, moving: Collection[str]):
        """moving: the names of arrays that a step may write over. Nobody writes over the others: they are held."""
        self.moving = moving
        self.arrays: dict[str, Held] = {}
        self._own: dict[str, Held] = {}  # the copies among them
        self._version: object = None  # of the state whose arrays these fit

    def take(self, state: State) -> _Kept:
        """Keep these numbers in place of those before."""
        with state.lock:
            if state.version is not self._version:
                self._version = None
                self.arrays = {name: self._fitting(name, state.held(name)) for name in state}
                self._own = {name: array for name, array in self.arrays.items() if name in self.moving}
                self._version = state.version
            state.copy_to(self._own)
        return self

    def _fitting(self, name: str, array: Held) -> Held:
        if name not in self.moving:
            return array
        mine = self._own.get(name)
        if mine is not None and type(mine) is type(array) and form(mine) == form(array):
            return mine
        if not isinstance(array, np.ndarray):
            with suppress(OutOfMemory):
                return array.empty()
        return np.empty(array.shape, array.dtype)


@dataclass(frozen=True)
class _Step:
    """One batch on its way through the program, and the metrics, at which nobody has looked yet."""

    epoch: int
    number: int
    samples: np.ndarray
    batch: Batch
    found: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """What its batch takes of the host's memory."""
        return sum(array.nbytes for array in self.batch.values() if isinstance(array, np.ndarray))


@dataclass(frozen=True)
class _Window:
    """Steps that were begun one after the other, from this progress and this state on."""

    progress: Progress
    before: _Kept
    steps: list[_Step] = field(default_factory=list)


@dataclass
class _Training:
    """One call of fit: what was asked for, and how far it has come.

    On a GPU, steps are begun without waiting for those before: the metrics of a window of them are read at once, and
    the state is kept at its start. Elsewhere, a window is one step. The state inside of a window is found again by
    making its steps once more: they repeat themselves to the bit.

    `window` is the current one. It is replaced by one assignment, so an interrupt at any moment finds progress and
    state that fit. `last` is the one before: its last step may be to blame for what the metrics of this one show, and
    then its memory takes the new state.
    """

    program: Program
    batches: Batches
    validation: tuple[Program, Batches] | None
    goal: Goal | None
    best_file: Path | None
    checkpoint: Path | None
    every: int | None
    visible: bool

    def __post_init__(self) -> None:
        self.metrics = _metrics(self.program.graph)
        self.identity = self._identity()
        self.moving = {old.name for old in self.program.source.updates}
        self.last: _Window | None = None
        self.window = _Window(Progress(), _Kept(self.moving).take(self.program.state))
        self.most = 1  # steps of a window
        self.in_step = self.brought = False
        self.started = 0.0

    def begin(self, resume: bool) -> None:
        """Read the checkpoint, if there is one to go on from."""
        for path in filter(None, (self.checkpoint, self.best_file)):
            checkpoints.remove_partial(path)
        if resume and self.checkpoint is not None and self.checkpoint.exists():
            progress = checkpoints.load(self.checkpoint, self.program.state, self.identity)
            self.window = _Window(progress, self.window.before.take(self.program.state))

    def run(self, epochs: int, patience: int | None, on_epoch: OnEpoch | None) -> None:
        """All epochs that are left. On Ctrl-C the error says where training stopped, and how it goes on."""
        try:
            while self.progress.epoch < epochs and not self.out_of(patience):
                self.epoch(epochs)
                if on_epoch is not None:
                    on_epoch(dict(self.progress.history[-1]))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self.interrupted()) from None

    @property
    def progress(self) -> Progress:
        """As far as somebody has looked."""
        return self.window.progress

    @property
    def steps(self) -> int:
        return self.progress.epoch * len(self.batches) + self.progress.batch

    def epoch(self, epochs: int) -> None:
        """What is left of the current epoch, its validation, and the files at its end."""
        self.window.before.take(self.program.state)  # as `on_epoch` has left it
        epoch, order = self.progress.epoch, self.batches.order(self.progress.epoch)
        with tqdm(
            total=self.batches.used,
            initial=self.progress.samples,
            desc=f"epoch {epoch + 1}/{epochs}",
            unit=" samples",
            disable=None if self.visible else True,
        ) as bar:
            for number in range(self.progress.batch, len(self.batches)):
                before = self.progress.samples
                self.step(epoch, order, number)
                ends, saves = number + 1 == len(self.batches), self.every and (number + 1) % self.every == 0
                if ends or saves or self.is_full():
                    self.look()
                    means = self.progress.means()
                    bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
                    bar.update(self.progress.samples - before)
                if saves and not ends:
                    self.save()
        self.finish_epoch()

    def step(self, epoch: int, order: np.ndarray, number: int) -> None:
        """Begin one."""
        if not self.window.steps:
            self.started = time.perf_counter()
        samples, batch = self.batches.indices(order, number), self.batches.batch(order, epoch, number)
        self.in_step = True
        try:
            outputs = self.program(**batch)
        except GraphError:
            self.in_step = False  # the state is as it was
            self.look()
            raise
        found = {name: outputs[name] for name in self.metrics}
        self.window.steps.append(_Step(epoch, number, samples, batch, found))
        self.in_step = False

    def is_full(self) -> bool:
        """Whether it is time to look."""
        steps = self.window.steps
        return len(steps) >= self.most or sum(step.nbytes for step in steps) > HELD

    def look(self) -> None:
        """Read the metrics of all steps that were begun. Raises NotFinite."""
        steps, progress = self.window.steps, self.window.progress
        if not steps:
            return
        values = iter(fetched([step.found[name] for step in steps for name in self.metrics]))
        seconds = (time.perf_counter() - self.started) / len(steps)
        for number, step in enumerate(steps):
            found = {name: float(next(values)) for name in self.metrics}
            wrong = [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]
            if wrong:
                raise self._not_finite(" and ".join(wrong), self.window, number)
            progress = progress.after(found, len(step.samples), seconds)
        kept = self.last.before if self.last is not None else _Kept(self.moving)
        self.last, self.window = self.window, _Window(progress, kept.take(self.program.state))
        if self.program.backend == "cupy":
            if not self.brought:
                self.bring()
            self.most = max(1, min(STEPS, int(SECONDS / max(seconds, 1e-9))))

    def bring(self) -> None:
        """Put the data where the program is, now that the first step has taken what memory it needs."""
        if self.batches.augment is None:
            self.batches = self.batches.brought(self.program.put)
        if self.validation is not None:
            program, batches = self.validation
            self.validation = program, batches.brought(program.put)
        self.brought = True

    def finish_epoch(self) -> None:
        begin = time.perf_counter()
        entry: dict[str, float] = {"epoch": self.progress.epoch + 1, **self.progress.means()}
        if self.validation is not None:
            entry.update({f"val_{name}": value for name, value in _evaluated(*self.validation).items()})
        entry["seconds"] = self.progress.seconds + time.perf_counter() - begin
        history = (*self.progress.history, entry)
        best = _best(history, self.goal, self.best_file)
        if best is not None and best.epoch == len(history) and best.file is not None:
            self._check_state()
            metadata = {"epoch": str(best.epoch), best.metric: repr(best.value)}
            self.program.state.save(best.file, metadata)
        # only now: no checkpoint speaks of a best file that is not there
        self.window = _Window(Progress(history), self.window.before)
        self.save()

    def save(self) -> None:
        """Write a checkpoint, if the state is worth going on from."""
        if self.checkpoint is not None:
            self._check_state()
            checkpoints.save(self.checkpoint, self.program.state, self.progress, self.identity)

    def out_of(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs were all not the best."""
        best = _best(self.progress.history, self.goal, None)
        return patience is not None and self.progress.epoch - (best.epoch if best else 0) >= patience

    def interrupted(self) -> str:
        """Back to the end of the last whole step, and a checkpoint of it. Returns a sentence for the user."""
        if self.in_step:
            self._return_to(self.window, len(self.window.steps))
            self.in_step = False
        self.look()
        progress = self.progress
        where = f"stopped in epoch {progress.epoch + 1} after {progress.batch:,} of {len(self.batches):,} batches"
        if self.checkpoint is None:
            return f"{where}; without checkpoint=FILE only the state in memory has what was learned"
        self.save()
        return f"{where}; the same call goes on from {self.checkpoint}"

    def _identity(self) -> dict[str, Any]:
        """What must agree for a training to go on from a checkpoint. The state is compared array by array."""
        forms = lambda batches: {name: form(array) for name, array in batches.data.items()}
        return {
            "graph of model, optimizer and schedule": _digest(self.program.graph),
            "data": forms(self.batches),
            "batch_size": self.batches.size,
            "seed": self.batches.seed,
            "drop_last": self.batches.drop_last,
            "best": self.goal and list(self.goal),
            "validation data": self.validation and forms(self.validation[1]),
        }

    def _check_state(self) -> None:
        """Raise NotFinite for a state that the last step spoiled: its loss was still a number, its gradients not."""
        spoiled = [name for name in self.program.graph.variables if not np.isfinite(self.program.state[name]).all()]
        if spoiled and self.last is not None:
            what = f"state {', '.join(spoiled)} became NaN or infinite"
            raise self._not_finite(what, self.last, len(self.last.steps) - 1)

    def _not_finite(self, what: str, window: _Window, number: int) -> NotFinite:
        """The error for this step of a window, with the state put back to before the step that is to blame.

        That may be the step before: gradients that are not finite spoil the parameters, and the next loss shows it.
        """
        suspects = [(window, number)]
        if number > 0:
            suspects.insert(0, (window, number - 1))
        elif window is not self.last and self.last is not None:
            suspects.insert(0, (self.last, len(self.last.steps) - 1))
        for window, number in suspects:
            step = window.steps[number]
            self._return_to(window, number)
            node = self.program.first_not_finite(**step.batch)
            if node is not None:
                break
        here = f"batch {step.number + 1:,} of {len(self.batches):,} in epoch {step.epoch + 1}"
        found = f"{node}" if node is not None else "run node by node, it gives finite numbers only"
        return NotFinite(
            f"{what}. It began with {here}: {found}.\nThe state is as it was before that batch, which is"
            " .batch of this error",
            {name: np.asarray(array) for name, array in step.batch.items()},
            step.samples,
        )

    def _return_to(self, window: _Window, number: int) -> None:
        """The state from before this step of a window."""
        self.program.state.replace(window.before.arrays)
        for step in window.steps[:number]:
            self.program(**step.batch)


def _taken(program: Program, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data, and where they lie on a GPU, copies of them, if there is room."""
    return program.put(data) if any(map(lies_on_gpu, data.values())) else data


def _metrics(graph: Graph) -> list[str]:
    """The outputs that are scalars."""
    return [name for name, value in graph.outputs.items() if value.type.shape == ()]


def _names(program: Program, validation: Validation | None) -> list[str]:
    """What an entry of the history has, but for the epoch and the seconds."""
    names = _metrics(program.graph) + ([f"val_{name}" for name in _metrics(validation[0].graph)] if validation else [])
    for name in ("epoch", "seconds"):
        expect(name not in names, "an output cannot be called {!r}: the history has its own", name)
    return names


def _best(history: Sequence[Mapping[str, float]], goal: Goal | None, file: Path | None) -> Best | None:
    """The first of the best epochs. One whose metric is NaN is none."""
    if goal is None:
        return None
    metric, mode = goal
    sign = 1 if mode == "min" else -1
    values = [(sign * entry[metric], index) for index, entry in enumerate(history) if not math.isnan(entry[metric])]
    if not values:
        return None
    entry = history[min(values)[1]]
    return Best(int(entry["epoch"]), metric, entry[metric], file)


def _digest(graph: Graph) -> str:
    """A short name for what a graph computes. Which lines of which files built it does not count."""
    lines = [line.partition("   @ ")[0] for line in str(graph).splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _check_inference(program: Program) -> None:
    expect(
        not program.graph.updates,
        "{!r} changes its state at each call; an evaluation takes a program of inference(model, outputs=[...])",
        program,
    )


def _check_validation(program: Program, validation: Validation | None, batch_size: int) -> None:
    """Whether validation will work: it is better known before the first epoch than at its end."""
    if validation is None:
        return
    check, data = validation
    expect(check.state is program.state, "the validation program has another state than the training program")
    first = {name: array[:batch_size] for name, array in Batches.of(_taken(check, data), batch_size).data.items()}
    evaluate(check, first, batch_size)


def _check_best(names: Sequence[str], best: Goal | None, best_file: FileName | None, patience: int | None) -> None:
    expect(
        best is not None or (best_file is None and patience is None),
        'best_file and patience need best=(metric, "min" or "max")',
    )
    expect(patience is None or patience >= 1, "patience is a number of 1 or more, not {!r}", patience)
    if best is not None:
        expect(
            isinstance(best, tuple) and len(best) == 2 and best[1] in ("min", "max"),
            'best is a metric and "min" or "max", as in ("val_accuracy", "max"), not {!r}',
            best,
        )
        expect(best[0] in names, "there is no metric {!r}; there are {}", best[0], ", ".join(names))


def _path(name: FileName | None) -> Path | None:
    return None if name is None else Path(name)
