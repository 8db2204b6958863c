"""minigraph: a small static-graph deep-learning compiler. This module is its face: what users need, from all rooms."""

from importlib.util import find_spec

if find_spec("minigraph.ops") is None or find_spec("minigraph.passes") is None:
    # ops/ and passes/ stand beside this folder and become minigraph.ops and minigraph.passes only by an installation.
    raise ImportError(
        "minigraph is not installed, only its source folder was found: type `pip install -e .` in the folder that holds"
        " pyproject.toml."
    )

__version__ = "0.1.0"
