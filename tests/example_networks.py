"""The module `networks` of examples/, for tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def _networks() -> Any:
    folder = str(Path(__file__).parent.parent / "examples")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("networks")
    finally:
        sys.path.remove(folder)


networks = _networks()
