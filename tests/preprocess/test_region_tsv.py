"""TSV of region features: every damage names the file, the line and the image, before anything is written."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from region_files import SIZES, bottom_up_tsv, corpus_folder, lxmert_tsv, made_up, vinvl_tsv

import preprocess.region_tsv
from corpora.corpus import Corpus, CorpusError
from preprocess.region_tsv import LxmertTsv
from preprocess.regions import import_regions

NAMES = list(SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return corpus_folder(tmp_path / "corpus")


def changed(path: Path, line: int, column: int, change) -> None:
    """Rewrite one cell of a TSV, or drop it where the change gives None."""
    lines = [row.split("\t") for row in path.read_text().splitlines()]
    lines[line][column] = change(lines[line][column])
    path.write_text("".join("\t".join(cell for cell in row if cell is not None) + "\n" for row in lines))


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        (9, lambda cell: cell[:-400], "features hold 420 bytes|features are .* wide, in line 1 60|which 3 boxes cannot share"),
        (9, lambda cell: cell[:-1], "features hold 717 bytes, which 3 boxes cannot share"),
        (9, lambda cell: cell[:40] + "!" + cell[41:], "features is no base64"),
        (9, lambda cell: None, "9 columns; the line is cut, or the layout another one"),
        (9, lambda cell: "", "cannot share"),
        (8, lambda cell: cell[:-8], "boxes holds 42 bytes, 3 boxes need 48 or 96"),
        (7, lambda cell: "4", "holds 48 bytes, 4 boxes need 64 or 128"),
        (7, lambda cell: "0", "num_boxes is '0'; expected a whole number from 1"),
        (7, lambda cell: "³", "num_boxes is"),
        (3, lambda cell: cell[:-12], "objects_id holds"),
        (2, lambda cell: "wide", "img_w is 'wide'"),
        (2, lambda cell: "20", "divide by the image's width and height first|box from"),
        (1, lambda cell: "-5", "img_h is '-5'"),
    ],
)
def test_a_changed_cell(folder, tmp_path, column, change, words):
    lxmert_tsv(tmp_path / "a.tsv", made_up())
    changed(tmp_path / "a.tsv", 2, column, change)
    with pytest.raises(CorpusError, match=words) as caught:
        import_regions(folder, [tmp_path / "a.tsv"], "x")
    assert "a.tsv, line 3" in str(caught.value) and "502" in str(caught.value)
    assert not list(folder.glob("regions*"))


@pytest.mark.parametrize("share", [0.3, 0.55, 0.95, 0.999])
def test_a_cut_file(folder, tmp_path, share):
    path = tmp_path / "a.tsv"
    lxmert_tsv(path, made_up())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorpusError, match=r"a\.tsv, line [234], image (dog_1|502|9): "):
        LxmertTsv(path).names()


def test_a_repeated_image_names_both_lines(folder, tmp_path):
    path = tmp_path / "a.tsv"
    lxmert_tsv(path, made_up())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1].replace("dog_1", "dog_1.jpg", 1)]))
    with pytest.raises(
        CorpusError, match=r"image dog_1: stands there more than once, in .*a\.tsv, line 2 and in .*a\.tsv, line 5"
    ):
        import_regions(folder, [path], "x")


@pytest.mark.parametrize("blank", ["\n", "\t\t\t\t\t\t\t\t\t\n"])
def test_an_empty_line(folder, tmp_path, blank):
    path = tmp_path / "a.tsv"
    lxmert_tsv(path, made_up())
    path.write_text(path.read_text() + blank)
    with pytest.raises(CorpusError, match="line 5"):
        import_regions(folder, [path], "x")


def test_a_file_without_line_ends_is_not_read_into_memory(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess.region_tsv, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "a.tsv"
    lxmert_tsv(path, made_up())
    path.write_bytes(path.read_bytes() + b"x" * (3 << 20))
    with pytest.raises(CorpusError, match=r"line 5: longer than 1 MiB"):
        import_regions(folder, [path], "x")


def test_other_integers_and_floats_by_their_length(folder, tmp_path):
    """int32 classes, float64 scores and boxes are seen by their lengths."""
    truth = made_up()
    wide = {
        name: row._replace(classes=row.classes.astype(np.int32), scores=row.scores.astype(np.float64))
        for name, row in truth.items()
    }
    lxmert_tsv(tmp_path / "a.tsv", wide)
    import_regions(folder, [tmp_path / "a.tsv"], "x")
    found = Corpus(folder).regions("x").of("9")
    np.testing.assert_array_equal(found.classes, truth["9"].classes)
    np.testing.assert_array_equal(found.scores, truth["9"].scores)


def test_boxes_a_little_outside_are_clipped_as_lxmert_takes_them(folder, tmp_path):
    truth = made_up()
    boxes = truth["9"].boxes.copy()
    boxes[0, 2], boxes[1, 0] = 1 + 9e-6, -9e-6
    lxmert_tsv(tmp_path / "a.tsv", truth | {"9": truth["9"]._replace(boxes=boxes)})
    import_regions(folder, [tmp_path / "a.tsv"], "x")
    found = Corpus(folder).regions("x").read(["9"])[1][0]
    assert (found[0, 2], found[1, 0]) == (1, 0)
    boxes[0, 2] = 1 + 2e-5
    lxmert_tsv(tmp_path / "a.tsv", truth | {"9": truth["9"]._replace(boxes=boxes)})
    with pytest.raises(CorpusError, match=r"line 4: regions of image 9: box from"):
        import_regions(folder, [tmp_path / "a.tsv"], "y")


def test_vinvl_without_boxes_is_refused(folder, tmp_path):
    vinvl_tsv(tmp_path / "a.tsv", made_up())
    rows = [line.split("\t") for line in (tmp_path / "a.tsv").read_text().splitlines()]
    for row in rows:
        numbers = np.frombuffer(base64.b64decode(row[2]), np.float32).reshape(3, -1)[:, :-6]
        row[2] = base64.b64encode(numbers.tobytes()).decode()
    (tmp_path / "a.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    with pytest.raises(CorpusError, match="line 1, image 501: the last six numbers of a region are not x1 y1 x2 y2 width height"):
        import_regions(folder, [tmp_path / "a.tsv"], "x")


def test_swapped_width_and_height_do_not_pass_in_silence(folder, tmp_path, capsys):
    """Boxes of a landscape end beyond its right side if it is taken for a portrait; a file without such boxes is told."""
    truth = {name: row._replace(boxes=row.boxes * 0.4) for name, row in made_up().items()}
    bottom_up_tsv(tmp_path / "a.tsv", truth)
    for line in range(4):
        cells = (tmp_path / "a.tsv").read_text().splitlines()[line].split("\t")
        changed(tmp_path / "a.tsv", line, 1, lambda cell, cells=cells: cells[2])
        changed(tmp_path / "a.tsv", line, 2, lambda cell, cells=cells: cells[1])
    import_regions(folder, [tmp_path / "a.tsv"], "x")
    told = capsys.readouterr().err
    assert "3 images have another shape in the corpus than where their boxes were found, which may lie wrong" in told
    assert "501 is 480 x 640 in" in told and "and 640 x 480 here" in told


def test_real_regions_of_coco(test_data, tmp_path):
    source = LxmertTsv(test_data / "bottom-up-coco10" / "train2014_obj36.tsv")
    names = source.names()
    assert len(names) == 10 and names[0] == "COCO_train2014_000000132417"
    first = next(iter(source.rows([True, *[False] * 9])))
    assert (first.size, first.regions.features.shape, first.pixels) == ((500, 333), (36, 2048), True)
    assert first.regions.features.min() == 0 and 24 < first.regions.features.max() < 36
    assert (first.regions.boxes[:, 2:].max(axis=0) <= first.size).all() and (first.regions.boxes[:, 2:].max(axis=0) > 300).all()
