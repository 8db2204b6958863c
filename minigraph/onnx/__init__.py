"""ONNX in and out: `load` makes a graph and its state of a model file, `save` writes one."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("onnx") is None:
    raise ImportError("Model files of ONNX need the package onnx: type `pip install 'minigraph[onnx]'`.")

from minigraph.onnx.read import load
from minigraph.onnx.write import save

__all__ = ["load", "save"]
