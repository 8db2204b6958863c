"""Which room may import from which: core -> ops -> nn | passes | backends -> driver -> onnx -> tools -> the face.

The imports are read, not run, so those under `if TYPE_CHECKING` and inside functions count as any other.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room is minigraph.<room> with all that is below it. It imports from itself and from the rooms of earlier stages.
STAGES = (("core",), ("ops",), ("nn", "passes", "backends"), ("driver",), ("onnx",), ("tools",))
EARLIER = {room: {r for s in STAGES[:i] for r in s} for i, stage in enumerate(STAGES) for room in stage}

FACE, PROGRAM = "minigraph", "minigraph.__main__"  # they stand beside the rooms
FOLDERS = {"minigraph": "minigraph", "minigraph.ops": "ops", "minigraph.passes": "passes"}
TOP_LEVEL = {"ops", "passes", "tests", "examples"}  # folders of the repository that are nobody's package


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


def imports(path: Path, module: str = "") -> Iterator[tuple[int, str, str | None]]:
    """Yield (line, module, name) for `from module import name` and (line, module, None) for what imports a module.

    `import a.b` without `as` binds `a`, and so counts as an import of a too.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
                if "." in alias.name and not alias.asname:
                    yield node.lineno, alias.name.split(".")[0], None
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:  # one dot is the package that the module is in, or is
                here = module.split(".")
                here = here[: len(here) - node.level + (path.name == "__init__.py")]
                origin = ".".join([*here, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, origin, alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, None


def room_of(module: str) -> str:
    return (module.split(".") + [""])[1]


def problems(root: Path) -> list[str]:
    """Every import in the package that goes the wrong way, every module in no room, every room that is not there."""
    known = modules(root)
    found = [f"{name} is in no room" for name in known if name not in (FACE, PROGRAM) and room_of(name) not in EARLIER]
    found += [f"the room {room} does not exist" for room in EARLIER if f"{FACE}.{room}" not in known]
    for module, path in known.items():
        where, room = path.relative_to(root), room_of(module)
        for line, origin, name in imports(path, module):
            if origin.split(".")[0] in TOP_LEVEL:
                found.append(f"{where}:{line}: {origin} is a folder of the repository, not a package")
            if origin.split(".")[0] != FACE or module == FACE or room not in EARLIER:
                continue
            target = f"{origin}.{name}" if f"{origin}.{name}" in known else origin
            if target == FACE:
                found.append(f"{where}:{line}: {module} imports the face: name the module that defines what it needs")
            elif target not in known:
                found.append(f"{where}:{line}: {module} imports {target}, and there is no such module")
            elif room_of(target) not in EARLIER[room] | {room}:
                found.append(f"{where}:{line}: {room} must not import from {room_of(target)}, here {target}")
    return found


def example_problems(root: Path) -> list[str]:
    """Examples show what a user can do: they import minigraph and its public modules, never the folders behind them."""
    found = []
    for path in sorted((root / "examples").rglob("*.py")):
        for line, origin, name in imports(path):
            parts = [*origin.split("."), *([name] if name else [])]
            if parts[0] in TOP_LEVEL or (parts[0] == FACE and any(part.startswith("_") for part in parts)):
                found.append(f"{path.relative_to(root)}:{line}: {'.'.join(parts)} is not public")
    return found


def test_imports_follow_the_arrows():
    found = problems(ROOT)
    assert not found, "\n".join(found)


def test_examples_import_the_face():
    found = example_problems(ROOT)
    assert not found, "\n".join(found)


# The checker itself, on trees made up for it.

TREE = {
    "minigraph/__init__.py": "from minigraph.core.ir import Graph\nfrom minigraph.tools.draw import draw",
    "minigraph/core/__init__.py": "",
    "minigraph/core/ir.py": "from __future__ import annotations\nimport ast, math\nimport numpy as np",
    "minigraph/core/op.py": "from minigraph.core import ir\nfrom .ir import Graph\nfrom . import ir as graphs",
    "ops/__init__.py": "from minigraph.ops import conv",
    "ops/conv.py": "from minigraph.core.op import Op\nimport minigraph.core.ir as ir",
    "passes/__init__.py": "from . import fold",
    "passes/fold.py": "from minigraph.ops.conv import conv2d\nfrom ..core.ir import Graph\nfrom minigraph import ops",
    "minigraph/nn/__init__.py": "",
    "minigraph/nn/layers.py": "import minigraph.ops.conv as conv",
    "minigraph/backends/__init__.py": "",
    "minigraph/backends/numpy/__init__.py": "from .run import run",
    "minigraph/backends/numpy/run.py": "from minigraph.ops import conv",
    "minigraph/driver.py": "from minigraph import backends, passes\nfrom minigraph.nn import layers",
    "minigraph/onnx/__init__.py": "import onnx\nfrom minigraph.core.ir import Graph",
    "minigraph/tools/__init__.py": "",
    "minigraph/tools/draw.py": "from minigraph.driver import compile",
    "examples/train.py": "import minigraph as mg, sklearn\nfrom minigraph import layers\nimport minigraph.tools.draw",
}


def write(root: Path, files: Mapping[str, str | None]) -> Path:
    for name, text in files.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


def test_a_tree_in_order_has_no_problems(tmp_path):
    assert problems(write(tmp_path, TREE)) == []
    assert example_problems(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("minigraph/core/ir.py", "from minigraph.ops import conv", "core must not import from ops"),
        ("minigraph/core/ir.py", "from ..ops.conv import conv2d", "core must not import from ops"),
        ("minigraph/core/ir.py", "def f():\n    from minigraph.driver import compile", "ir.py:2: core must not"),
        ("minigraph/core/ir.py", "if TYPE_CHECKING:\n    from minigraph import passes", "core must not import"),
        ("minigraph/core/ir.py", "importlib.import_module('minigraph.ops.conv')", "core must not import from ops"),
        ("ops/conv.py", "import minigraph.nn.layers as layers", "ops must not import from nn"),
        ("ops/conv.py", "from ..passes import fold", "ops must not import from passes"),
        ("passes/fold.py", "from minigraph.nn import layers", "passes must not import from nn"),
        ("passes/__init__.py", "from ..backends.numpy import run", "passes must not import from backends"),
        ("minigraph/nn/layers.py", "from minigraph.backends.numpy.run import run", "nn must not import from backends"),
        ("minigraph/nn/layers.py", "from minigraph.passes.fold import fold", "nn must not import from passes"),
        ("minigraph/backends/numpy/run.py", "from ...passes import fold", "backends must not import from passes"),
        ("minigraph/backends/numpy/__init__.py", "from ...nn import layers", "backends must not import from nn"),
        ("minigraph/driver.py", "from minigraph.tools.draw import draw", "driver must not import from tools"),
        ("minigraph/driver.py", "from minigraph.onnx import load", "driver must not import from onnx"),
        ("minigraph/onnx/__init__.py", "from minigraph.tools import draw", "onnx must not import from tools"),
        ("minigraph/core/ir.py", "import minigraph", "imports the face"),
        ("minigraph/core/op.py", "import minigraph.core.ir", "imports the face"),
        ("minigraph/tools/draw.py", "def f():\n    from minigraph import Graph", "draw.py:2: minigraph.tools.draw im"),
        ("minigraph/driver.py", "from . import Graph", "imports the face"),
        ("ops/conv.py", "from minigraph.core.gone import x", "there is no such module"),
        ("minigraph/tools/draw.py", "from ops import conv", "ops is a folder of the repository"),
        ("minigraph/__init__.py", "from passes.fold import fold", "passes.fold is a folder of the repository"),
        ("minigraph/stray.py", "", "minigraph.stray is in no room"),
        ("minigraph/extra/__init__.py", "", "minigraph.extra is in no room"),
        ("minigraph/driver.py", None, "the room driver does not exist"),
    ],
)
def test_an_import_the_wrong_way_is_caught(tmp_path, file, text, problem):
    tree = {**TREE, file: text}
    if text is None:  # nobody may import what is not there
        tree["minigraph/tools/draw.py"] = ""
    found = problems(write(tmp_path, tree))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize("text", ["import ops", "from passes.fold import f", "from minigraph.core.ir import _hidden"])
def test_an_example_that_reaches_behind_the_face_is_caught(tmp_path, text):
    assert len(example_problems(write(tmp_path, {**TREE, "examples/train.py": text}))) == 1
