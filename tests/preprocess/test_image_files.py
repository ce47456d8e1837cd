"""Image files are read in order; faults come as values."""

from __future__ import annotations

import pytest
from PIL import Image

from corpora.corpus import CorpusError
from preprocess import image_files
from preprocess.image_files import read_image_files, refuse_faults


def test_files_come_in_order_over_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "FILES_AT_ONCE", 3)
    paths = [tmp_path / f"{k}.png" for k in range(8)]
    for k, path in enumerate(paths):
        Image.new("RGB", (k + 1, 2 * k + 1)).save(path)
    files = list(read_image_files(paths))
    assert [(file.width, file.height) for file in files] == [(k + 1, 2 * k + 1) for k in range(8)]
    assert all(file.data == path.read_bytes() and not file.fault for file, path in zip(files, paths, strict=True))


def test_faults_say_why(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    missing, cut, folder = read_image_files([tmp_path / "none.jpg", tmp_path / "cut.png", tmp_path])
    assert missing.fault == "no such file"
    assert cut.fault.startswith("cannot be decoded (cannot identify")
    assert "directory" in folder.fault


def test_refusal_lists_the_first_five():
    refuse_faults("here", 9, [])
    with pytest.raises(CorpusError, match=r"here: 7 of 9 images cannot be used.*--bad-images skip") as caught:
        refuse_faults("here", 9, [{"path": f"p{k}", "reason": "gone"} for k in range(7)])
    assert "p4: gone" in str(caught.value)
    assert "p5" not in str(caught.value)
