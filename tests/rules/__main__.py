"""Write the golden texts anew, as the rules now rewrite their examples: in tests/, python -m rules [NAME...]

Without names, of all rules. Look at the difference before you commit it.
"""

import ast
import sys
import textwrap
from pathlib import Path
from types import ModuleType

from minigraph.core.rewrite import rewrite
from rules import Case, graph_of, numbers, text
from test_rules import MODULES, RULES

INDENT = 12


def golden(name: str, case: Case) -> str:
    """The text as a Python string that stands in CASES."""
    graph = graph_of(case.build)
    after = text(rewrite(graph, (RULES[name],), numbers(graph, case.ranges)))
    return '"""\n' + textwrap.indent(after, " " * INDENT) + "\n" + " " * INDENT + '"""'


def write(module: ModuleType, names: list[str]) -> None:
    path = Path(str(module.__file__))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = {}  # the place of each golden text
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Dict):
            for key, call in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value in names and isinstance(call, ast.Call):
                    found[str(key.value)] = next(k.value for k in call.keywords if k.arg == "golden")
    for name, place in sorted(found.items(), key=lambda pair: -pair[1].lineno):
        first, last = lines[place.lineno - 1], lines[place.end_lineno - 1]  # type: ignore[operator]
        text = first[: place.col_offset] + golden(name, module.CASES[name]) + last[place.end_col_offset :]
        lines[place.lineno - 1 : place.end_lineno] = [text]
    path.write_text("".join(lines), encoding="utf-8")
    print(*found, sep="\n")


for module in MODULES:
    write(module, [name for name in module.CASES if name in (sys.argv[1:] or RULES)])
