"""Half precision: references that add up many numbers do so in float32 and round once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np


def in_float32(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference, computing in float32 where it is given float16; its one result is float16 again."""

    @wraps(reference)
    def computed(*arrays: np.ndarray, **attrs: Any) -> Any:
        if not any(array.dtype == np.float16 for array in arrays):
            return reference(*arrays, **attrs)
        wide = (array.astype(np.float32) if array.dtype == np.float16 else array for array in arrays)
        return np.asarray(reference(*wide, **attrs)).astype(np.float16)

    return computed
