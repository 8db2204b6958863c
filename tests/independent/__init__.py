"""Independent implementations of ops, a module for each family of ops.

A module has CASES (what is tried), ONNX (op -> a function that writes ONNX nodes), LOOPS (op -> the definition, number
by number, in float64) and EXACT (the ops that are right to the last bit). See onnx_ops.py, which holds the first ones.
"""

from importlib import import_module
from pkgutil import iter_modules

FAMILIES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
