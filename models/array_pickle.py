"""Reads a stranger's pickle of numpy arrays, as detectron2 publishes weights, without calling anything it names.

A pickle is a program: it may name any function and have it called. Here the few names that stand in a pickle of arrays
lead to the classes below, which only keep what they are given; every other name is refused.
"""

from __future__ import annotations

import collections
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np


class PickledType:
    """A numpy dtype: its code, such as "f4", and its byte order."""

    def __init__(self, code: str, *flags: bool) -> None:
        if not re.fullmatch(r"[fiub][1248]", code):
            raise pickle.UnpicklingError(f"holds an array of {code!r}, not of numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"holds an array of byte order {state[1]!r}")
        self.order = state[1]


class PickledArray:
    """A numpy array: made empty, then given (version, shape, type, whether in Fortran's order, bytes)."""

    array: np.ndarray | None = None

    def __init__(self, *beginning: Any) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if isinstance(data, str):  # Python 2 knew no bytes
            data = data.encode("latin1")
        if not isinstance(kind, PickledType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("holds an array that is none of numbers")
        self.array = np.frombuffer(data, kind.order + kind.code).reshape(shape, order="F" if fortran else "C")


def encoded(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes for Python 2 as text to encode."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): encoded,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
}
"""What stands in a pickle of arrays."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"a pickle that asks for {module}.{name}; only numpy arrays in plain containers are read. If you trust the file, "
                "convert it elsewhere to safetensors"
            ) from None


def read_array_pickle(path: Path) -> Any:
    """What the file holds, with a PickledArray for each array. Raises pickle.UnpicklingError for anything but arrays and plain values."""
    with path.open("rb") as file:
        return _Unpickler(file, encoding="latin1").load()
