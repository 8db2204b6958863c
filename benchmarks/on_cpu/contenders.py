"""Who takes part: minigraph, and each of the others in every mode that could be its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

# glibc keeps what is freed: large arrays are not fetched from the system, page by page, again and again
MEMORY_KEPT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
OURS = "minigraph"


@dataclass(frozen=True)
class Contender:
    """module: of benchmarks.on_cpu. threads: a number of its own. environment: variables for its process."""

    name: str
    package: str
    module: str
    mode: str
    training: bool = True
    answering: bool = True
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def takes(self, training: bool) -> bool:
        """Whether it has anything to do with steps of training, or with answers."""
        return self.training if training else self.answering


CONTENDERS = (
    Contender(OURS, "minigraph", "ours", "compiled"),
    Contender("torch", "torch", "in_torch", "eager"),
    Contender("torch, one thread", "torch", "in_torch", "eager", answering=False, threads=1),
    Contender("torch tuned", "torch", "in_torch", "tuned"),
    Contender("torch tuned, memory kept", "torch", "in_torch", "tuned", environment=MEMORY_KEPT),
    Contender("torch compiled", "torch", "in_torch", "compiled"),
    Contender("torch compiled, memory kept", "torch", "in_torch", "compiled", environment=MEMORY_KEPT),
    Contender("torch folded", "torch", "in_torch", "folded", training=False),
    Contender("torch optimized", "torch", "in_torch", "optimized", training=False),
    Contender("jax", "jax", "in_jax", "jit"),
    Contender("jax, one thread", "jax", "in_jax", "jit", threads=1),
    Contender("jax, constant weights", "jax", "in_jax", "constant", training=False),
    Contender("jax, memory kept", "jax", "in_jax", "jit", answering=False, environment=MEMORY_KEPT),
    Contender("onnxruntime", "onnxruntime", "in_onnxruntime", "all", training=False),
    Contender("onnxruntime, one thread", "onnxruntime", "in_onnxruntime", "all", training=False, threads=1),
    Contender("openvino", "openvino", "in_openvino", "latency", training=False),
    Contender("openvino, one thread", "openvino", "in_openvino", "latency", training=False, threads=1),
)


def installed(contenders: Sequence[Contender]) -> tuple[list[Contender], list[str]]:
    """Those that can take part, and a sentence for each package that is missing."""
    missing = {one.package for one in contenders if find_spec(one.package) is None}
    sentences = [f"{package} is not installed: it takes no part (pip install '.[benchmarks]')" for package in missing]
    return [one for one in contenders if one.package not in missing], sorted(sentences)
