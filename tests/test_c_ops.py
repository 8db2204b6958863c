"""Every op of the registry, compiled, against its reference."""

from __future__ import annotations

import pytest
from c_programs import Joined, Joining, Room, by_references, differences, in_c, with_compiler

from minigraph.core.ir import FLOATS
from minigraph.core.op import OPS, Example, Op

CHUNK = 170  # applications in one program


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Everything is compiled anew in each run of the tests."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path_factory.getbasetemp() / "programs"))


def examples() -> list[tuple[str, Op, Example]]:
    return [(f"{op.name}.{i}", op, e) for op in OPS.values() for i, e in enumerate(op.examples)]


EXAMPLES = examples()
CHUNKS = [EXAMPLES[i : i + CHUNK] for i in range(0, len(EXAMPLES), CHUNK)]


def hold(joined: Joined) -> None:
    found = in_c(joined.graph, joined.arrays)
    wrong, loose = differences(by_references(joined.graph, joined.arrays), found, Room(joined.graph, joined.arrays))
    assert not wrong, "\n".join(wrong)
    assert loose <= 0.05 * len(found)


@with_compiler
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("chunk", CHUNKS, ids=[chunk[0][0] for chunk in CHUNKS])
def test_examples(chunk, dtype):
    joining = Joining()
    for label, op, example in chunk:
        joining.example(label, op, example, dtype)
    assert len(joining.refused) < 0.2 * len(chunk), joining.refused
    hold(joining.done())
