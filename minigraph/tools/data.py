"""Batches from arrays. What is in batch b of epoch e follows from (seed, e, b) alone, so that a resumed run repeats it.

The generators are seeded with (seed, 0, epoch) for the order of the samples and (seed, 1, epoch, batch) for
augmentation: no draw of one depends on how much was drawn from another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigraph.backends.cupy.arrays import GpuArray, moved
from minigraph.backends.cupy.device import lies_on_gpu
from minigraph.backends.cupy.rows import Rows
from minigraph.core import dim
from minigraph.core.errors import GraphError, expect
from minigraph.core.ir import Graph

Batch = dict[str, Any]  # of NumPy's arrays, or Rows
Augment = Callable[[Batch, np.random.Generator], Mapping[str, np.ndarray]]
ORDER, AUGMENT = 0, 1


@dataclass(frozen=True)
class Batches:
    """The batches of each epoch.

    data: arrays whose first axis is the sample; every batch has the same samples of each.
    seed: None leaves the samples in their order.
    drop_last: leave out the last batch of an epoch where it would be shorter than the others.
    augment: changes a batch before it is used. It gets copies, and a generator of this batch's own.

    Data may lie on a GPU, where they are shuffled then, in the same order: a batch has `Rows` of them.
    """

    data: Mapping[str, Any]
    size: int
    seed: int | None = None
    drop_last: bool = False
    augment: Augment | None = None
    _there: list[Any] = field(
        default_factory=list, init=False, repr=False, compare=False
    )  # an order, and it on the GPU

    @staticmethod
    def of(
        data: Mapping[str, Any],
        size: int,
        seed: int | None = None,
        drop_last: bool = False,
        augment: Augment | None = None,
    ) -> Batches:
        """Batches of these arrays; GraphError if they do not fit together."""
        for name, array in data.items():
            here = isinstance(array, GpuArray) or not lies_on_gpu(array)
            expect(here, "data {!r} lie on a GPU that has no room for a copy, or on no GPU of the program's", name)
        stays = lambda array: isinstance(array, GpuArray) and augment is None
        arrays = {name: array if stays(array) else np.asanyarray(array) for name, array in data.items()}
        expect(arrays, "there is no data: give a dict from the names of inputs to arrays")
        for name, array in arrays.items():
            expect(array.ndim >= 1, "data {!r} is one number; its first axis must be the sample", name)
        counts = {name: len(array) for name, array in arrays.items()}
        expect(
            len(set(counts.values())) == 1,
            "the data differ in their number of samples: {}",
            ", ".join(f"{name} has {n:,}" for name, n in counts.items()),
        )
        expect(isinstance(size, int) and size >= 1, "batch_size is a number of 1 or more, not {!r}", size)
        expect(seed is None or (isinstance(seed, int) and seed >= 0), "seed is a number of 0 or more, not {!r}", seed)
        batches = Batches(arrays, size, seed, drop_last, augment)
        expect(
            len(batches),
            "{:,} samples make no batch of {:,}{}",
            batches.samples,
            size,
            " with drop_last=True" if batches.samples else "",
        )
        return batches

    @property
    def samples(self) -> int:
        """How many samples the data have."""
        return len(next(iter(self.data.values())))

    def __len__(self) -> int:
        return self.samples // self.size if self.drop_last else -(-self.samples // self.size)

    @property
    def used(self) -> int:
        """How many samples an epoch uses."""
        return min(self.samples, len(self) * self.size)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of all samples, in the order of this epoch."""
        if self.seed is None:
            return np.arange(self.samples)
        return np.random.default_rng((self.seed, ORDER, epoch)).permutation(self.samples)

    def indices(self, order: np.ndarray, number: int) -> np.ndarray:
        return order[number * self.size : (number + 1) * self.size]

    def batch(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        batch = {name: self._chosen(array, order, number) for name, array in self.data.items()}
        if self.augment is None:
            return batch
        return dict(self.augment(batch, np.random.default_rng((self.seed or 0, AUGMENT, epoch, number))))

    def _chosen(self, array: Any, order: np.ndarray, number: int) -> Any:
        chosen = self.indices(order, number)
        if not isinstance(array, GpuArray):
            return array[chosen]
        start = number * self.size
        return Rows(array, self._on_gpu(array, order), start, start + len(chosen))

    def _on_gpu(self, array: GpuArray, order: np.ndarray) -> GpuArray:
        """The order of an epoch, beside the data."""
        if not self._there or self._there[0] is not order:
            self._there[:] = [order, moved(array.device, order.astype(np.int64, copy=False))]
        found: GpuArray = self._there[1]
        return found

    def brought(self, bring: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Batches:
        """The same batches, of the data where `bring` has put them."""
        return replace(self, data=bring(self.data))

    def check_last(self, graph: Graph) -> None:
        """Raise GraphError if the graph cannot run on the short last batch: a batch norm may need more than one sample.

        It is better known before the first epoch than at its end.
        """
        if self.used % self.size == 0:
            return
        short = self.used % self.size
        symbols: dict[str, int] = {}
        for value in graph.inputs:
            array = self.data.get(value.name)
            if array is None or not dim.solve(value.type.shape, (short, *array.shape[1:]), symbols):
                return  # no batch fits, and the program says it better
        try:
            graph.bind(**symbols)
        except GraphError as error:
            raise GraphError(
                f"{error}\nOf {self.samples:,} samples in batches of {self.size:,}, the last batch has"
                f" {short:,}: drop_last=True leaves it out, another batch_size avoids it"
            ) from None


def form(array: Any) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"
