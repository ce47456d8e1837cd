"""Weights from files of other programs, by the names of their tensors. Nothing in a file is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.array_pickle import PickledArray, read_array_pickle

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".pkl")
IGNORED = ("pixel_mean", "pixel_std")
"""detectron2 saves them beside the weights."""
DAMAGES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, AssertionError)
"""What reading damaged bytes raises."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, a torch file (read with weights_only) or a .pkl of numpy arrays; else one ValueError."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a file of weights ends in one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            read: Any = load_file(path)
        elif path.suffix == ".pkl":
            read = read_array_pickle(path)
        else:
            read = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: refused: {_first_line(error)}") from None
    except (OSError, SafetensorError, MemoryError, *DAMAGES) as error:
        raise ValueError(f"{path}: cannot be read as weights ({type(error).__name__}: {_first_line(error)})") from None
    return _tensors(read, path)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _tensors(read: Any, path: Path) -> dict[str, Tensor]:
    """Also where they are the entry "model" of a checkpoint, beside what else it remembers."""
    if isinstance(read, Mapping) and isinstance(read.get("model"), Mapping):
        read = read["model"]
    if not isinstance(read, Mapping) or not read:
        raise ValueError(f"{path}: holds a {type(read).__name__}, not weights by name")
    tensors = {}
    for name, value in read.items():
        if isinstance(value, PickledArray) and value.array is not None:
            value = torch.from_numpy(value.array.astype(value.array.dtype.newbyteorder("=")))
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name!r} is a {type(value).__name__}, not an array of numbers")
        if name not in IGNORED:
            tensors[name] = value
    return tensors


def load_named(model: nn.Module, tensors: Mapping[str, Tensor], source: str, optional: tuple[str, ...] = ()) -> None:
    """Load tensors by name. One ValueError tells all that are missing, unknown, of another shape or not finite.

    What ends with one of `optional` may be missing: the model keeps its own.
    """
    own = model.state_dict()
    faults = {
        "missing": [name for name in own if name not in tensors and not name.endswith(optional)],
        "unknown": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(value.shape)}"
            for name, value in own.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
        "not finite": [name for name, value in tensors.items() if not torch.isfinite(value).all()],
    }
    told = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in faults.items()
        if names
    ]
    if told:
        raise ValueError(f"{source}: the weights are not those of this model; {'; '.join(told)}")
    model.load_state_dict(dict(tensors), strict=False)
