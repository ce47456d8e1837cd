"""Weights by name from safetensors, torch files and pickles; a pickle is never run."""

from __future__ import annotations

import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.weight_files import load_named, read_tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(6, dtype=">f8").reshape(3, 2),
    "c": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    "d": np.array(7, np.int64),
}


def same(read: dict[str, torch.Tensor]) -> bool:
    return set(read) == set(ARRAYS) and all(np.array_equal(read[name].numpy(), ARRAYS[name]) for name in ARRAYS)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_of_arrays(tmp_path, protocol, wrapped):
    whole = {"model": OrderedDict(ARRAYS), "__author__": "Caffe", "matching_heuristics": True} if wrapped else ARRAYS
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(whole, protocol))
    assert same(read_tensors(tmp_path / "w.pkl"))


def test_a_pickle_of_python_2(tmp_path):
    """Bytes were text there, and numpy's module had another name."""
    data = np.array([1.0, 300.5], np.float32)
    raw = data.tobytes().decode("latin1").encode("unicode_escape").decode().replace("'", "\\'")
    text = (
        "(dp0\nS'w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        f"(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS'{raw}'\n"
        "p15\ntp16\nbs."
    )
    (tmp_path / "w.pkl").write_bytes(text.encode("latin1"))
    assert torch.equal(read_tensors(tmp_path / "w.pkl")["w"], torch.from_numpy(data))


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_files_of_tensors(tmp_path, suffix):
    tensors = {"w": torch.arange(3.0), "pixel_mean": torch.ones(3)}
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save({"model": tensors, "iteration": 3}, path)
    read = read_tensors(path)
    assert list(read) == ["w"]
    assert torch.equal(read["w"], tensors["w"])


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin"])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, suffix):
    evil, path = {"w": np.ones(3), "x": Malicious(tmp_path / "mark")}, tmp_path / f"w{suffix}"
    path.write_bytes(pickle.dumps(evil)) if suffix == ".pkl" else torch.save(evil, path)
    with pytest.raises(ValueError, match=r"refused: .*" + ("system; only numpy arrays" if suffix == ".pkl" else "")) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("program", "asked"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__main__\nx\n.", "__main__.x"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "rot13"),
        (b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR.", "'O'"),
        (b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'evil'\nNNNI-1\nI-1\nI0\ntb.", "evil"),
    ],
)
def test_names_beyond_those_of_arrays_are_refused(tmp_path, program, asked):
    (tmp_path / "w.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=r"w\.pkl: refused: ") as error:
        read_tensors(tmp_path / "w.pkl")
    assert asked in str(error.value)


@pytest.mark.parametrize(
    "held", [[1, 2], {}, {"w": np.array(["x", "y"])}, {"w": "text"}, {3: np.ones(2)}, {"model": {"w": None}}]
)
def test_what_is_no_weights_by_name(tmp_path, held):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(ValueError, match=r"w\.pkl: "):
        read_tensors(tmp_path / "w.pkl")


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_damaged_files_give_one_error_or_the_right_numbers(tmp_path, suffix):
    """Truncated anywhere, or a byte changed: never another exception; a changed number cannot be noticed."""
    path = tmp_path / f"w{suffix}"
    tensors = {"w": torch.arange(4.0)}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"w": tensors["w"].numpy()}))
    else:
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(whole[: dice.randrange(len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(dice.randrange(1, 4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read = read_tensors(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in read.values())


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"ends in one of \.safetensors"):
        read_tensors(tmp_path / "w.npz")
    with pytest.raises(ValueError, match="FileNotFoundError"):
        read_tensors(tmp_path / "w.pkl")


# By name


def test_one_error_names_all_that_does_not_fit():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    tensors = model.state_dict()
    good = {name: value + 1 for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    with pytest.raises(ValueError, match=r"^w\.pkl: .*1 missing: 1\.num_batches_tracked$"):
        load_named(model, good, "w.pkl")
    load_named(model, good, "w.pkl", (".num_batches_tracked",))
    assert torch.equal(model[0].weight, good["0.weight"])
    bad = {**good, "0.weight": torch.zeros(2, 3), "0.bias": torch.tensor([1, float("nan"), 2]), "head": torch.ones(1)}
    del bad["1.running_mean"]
    with pytest.raises(ValueError) as error:
        load_named(model, bad, "w.pkl", (".num_batches_tracked",))
    for told in ("1 missing: 1.running_mean", "1 unknown: head", "0.weight (2, 3) for (3, 2)", "1 not finite: 0.bias"):
        assert told in str(error.value)
    assert torch.equal(model[0].weight, good["0.weight"])  # nothing of it was loaded
