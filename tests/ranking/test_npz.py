from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranking.matrix import Provenance, RankingError
from ranking.metrics import positions
from ranking.npz import read_npz, write_npz

IMPORTED = Provenance("clip", "", "coco", "test", "", "logit")


@pytest.fixture
def stored(captioned):
    """The arrays of a file of 4 images with 5 captions each, rows = images, as the original code writes them."""
    ranking = captioned(4, 5)
    return {
        "logits": ranking.scores,
        "labels": np.repeat(np.eye(4), 5, axis=1),
        "i2t_ranks": positions(ranking).first,
        "t2i_ranks": positions(ranking.T).first,
    }


def save(path, arrays, **changes):
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path


@pytest.mark.parametrize("rows", ["image", "text"])
def test_round_trip(captioned, tmp_path, rows):
    ranking = captioned(6, 5)
    path = tmp_path / "matrix.npz"
    write_npz(path, ranking, rows)
    assert list(tmp_path.iterdir()) == [path]
    back = read_npz(path, IMPORTED, image_ids=ranking.queries.ids, text_ids=ranking.items.ids)
    assert back.queries.kind == rows
    assert back.provenance == IMPORTED
    images = back.by("image")
    assert (images.queries, images.items) == (ranking.queries, ranking.items)
    np.testing.assert_array_equal(images.rows(0, 6), ranking.scores)
    np.testing.assert_array_equal(images.relevant.pairs(), ranking.relevant.pairs())


@pytest.mark.parametrize("rows", ["image", "text"])
def test_file_to_file(stored, tmp_path, rows):
    flip = (lambda matrix: matrix) if rows == "image" else np.transpose
    old = save(tmp_path / "old.npz", stored, logits=flip(stored["logits"]), labels=flip(stored["labels"]))
    write_npz(tmp_path / "new.npz", read_npz(old, IMPORTED), rows)
    with np.load(old) as before, np.load(tmp_path / "new.npz") as after:
        assert set(before.files) == set(after.files)
        for key in before.files:
            np.testing.assert_array_equal(before[key], after[key])
        assert (after["logits"].dtype, after["i2t_ranks"].dtype.kind) == (np.float32, "i")


def test_rows_are_images_unless_said(captioned, tmp_path):
    write_npz(tmp_path / "matrix.npz", captioned(4, 5).T)
    with np.load(tmp_path / "matrix.npz") as file:
        assert {key: file[key].shape for key in file.files} == {
            "logits": (4, 20),
            "labels": (4, 20),
            "i2t_ranks": (4,),
            "t2i_ranks": (20,),
        }


def test_ids_by_position(stored, tmp_path):
    ranking = read_npz(save(tmp_path / "matrix.npz", stored), IMPORTED)
    assert ranking.queries.ids == ("0", "1", "2", "3")
    assert ranking.items.ids[-1] == "19"


def first_ranks(logits, labels, against: bool) -> dict[str, np.ndarray]:
    """First ranks with every tie for or against the truth, by comparing all with all."""
    truth, ranks = labels.astype(bool), {}
    for axis, key in ((1, "i2t_ranks"), (0, "t2i_ranks")):
        best = np.where(truth, logits, -99).max(axis=axis, keepdims=True)
        above = (logits >= best) & ~truth if against else logits > best
        ranks[key] = above.sum(axis=axis)
    return ranks


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
@pytest.mark.parametrize("against", [False, True])
def test_ties_in_any_order(stored, tmp_path, dtype, against):
    """Half-precision scores tie, and the original broke ties in no certain order: any rank within a tie is accepted, none beyond."""
    logits = np.round(stored["logits"] * 2).astype(dtype)
    ranks = first_ranks(logits, stored["labels"], against)
    assert (ranks["t2i_ranks"] != first_ranks(logits, stored["labels"], not against)["t2i_ranks"]).any(), "nothing ties"
    np.testing.assert_array_equal(read_npz(save(tmp_path / "a.npz", stored, logits=logits, **ranks), IMPORTED).scores, logits)
    ranks["t2i_ranks"] = ranks["t2i_ranks"] + (1.0 if against else -1.0)
    with pytest.raises(RankingError, match="20 of 20 t2i_ranks are not what"):
        read_npz(save(tmp_path / "b.npz", stored, logits=logits, **ranks), IMPORTED)


def square(stored, rows):
    """As many captions as images, so that the lengths of the ranks say nothing."""
    logits = stored["logits"][:, ::5]
    best = (logits > np.diag(logits)[:, None]).sum(axis=1), (logits > np.diag(logits)).sum(axis=0)
    i2t, t2i = best if rows == "image" else best[::-1]
    return {"logits": logits, "labels": np.eye(4), "i2t_ranks": i2t, "t2i_ranks": t2i}


@pytest.mark.parametrize("rows", ["image", "text"])
def test_square_needs_a_word(stored, tmp_path, rows):
    path = save(tmp_path / "matrix.npz", square(stored, rows))
    with pytest.raises(RankingError, match=r"matrix.npz: logits \(4, 4\) are square, .* say which: rows='image' or 'text'"):
        read_npz(path, IMPORTED)
    assert read_npz(path, IMPORTED, rows=rows).queries.kind == rows
    with pytest.raises(RankingError, match="are not what logits and labels give"):
        read_npz(path, IMPORTED, rows="text" if rows == "image" else "image")


def test_rows_said_wrongly(stored, tmp_path):
    path = save(tmp_path / "matrix.npz", stored)
    assert read_npz(path, IMPORTED, rows="image").queries.kind == "image"
    with pytest.raises(RankingError, match=r"rows cannot be text: logits \(4, 20\) for the ranks of 4 images and 20 captions"):
        read_npz(path, IMPORTED, rows="text")


def test_one_based_ranks_are_found_out(stored, tmp_path):
    path = save(tmp_path / "matrix.npz", stored, t2i_ranks=stored["t2i_ranks"] + 1)
    with pytest.raises(RankingError, match=r"20 of 20 t2i_ranks are not what logits and labels give, the first: text '0' has \d"):
        read_npz(path, IMPORTED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None, "i2t_ranks": None}, "lacks labels, i2t_ranks; a matrix file holds logits, labels"),
        ({"t2i_ranks": np.zeros(19)}, r"logits \(4, 20\) fit neither way to the ranks of 4 images and 19 captions"),
        ({"labels": np.eye(4)}, "logits and labels must be matrices of one shape"),
        ({"i2t_ranks": np.zeros((4, 1))}, r"i2t_ranks float64 \(4, 1\).*ranks one row each"),
        ({"i2t_ranks": np.array(["0"] * 4)}, "must be numbers"),
        ({"i2t_ranks": np.array([None] * 4, object)}, "not a whole .npz matrix file .*allow_pickle=False"),
        ({"labels": np.full((4, 20), 0.5)}, "80 labels are neither 0 nor 1, the first: 0.5"),
        ({"labels": np.full((4, 20), np.nan)}, "80 labels are neither 0 nor 1"),
        ({"labels": np.zeros((4, 20))}, "4 of 4 image queries have no relevant item"),
        ({"logits": np.full((4, 20), np.nan)}, "80 of 80 scores are not finite"),
        ({"i2t_ranks": np.full(4, np.nan)}, "4 of 4 i2t_ranks are not what logits and labels give"),
    ],
)
def test_files_that_do_not_fit(stored, tmp_path, changes, message):
    with pytest.raises(RankingError, match=f"matrix.npz: .*{message}"):
        read_npz(save(tmp_path / "matrix.npz", stored, **changes), IMPORTED)


def test_ids_that_do_not_fit(stored, tmp_path):
    path = save(tmp_path / "matrix.npz", stored)
    with pytest.raises(RankingError, match="holds ranks of 4 images and 2 image ids were given"):
        read_npz(path, IMPORTED, image_ids=["a", "b"])
    with pytest.raises(RankingError, match="image axis: id 'a' stands there more than once"):
        read_npz(path, IMPORTED, image_ids=["a", "b", "c", "a"])
    with pytest.raises(RankingError, match="image axis: id 391895: must be a string"):
        read_npz(path, IMPORTED, image_ids=[391895, 1, 2, 3])


def test_damaged_files(stored, tmp_path):
    path = save(tmp_path / "matrix.npz", stored)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(stored["logits"].tobytes()) + 5] ^= 1
    for damaged in (b"", content[:50], content[:-1], bytes(flipped), b"text"):
        path.write_bytes(damaged)
        with pytest.raises(RankingError, match=r"matrix\.npz: not a whole \.npz matrix file"):
            read_npz(path, IMPORTED)
    np.save(tmp_path / "matrix.npy", stored["logits"])
    for other in ("matrix.npy", "missing.npz"):
        with pytest.raises(RankingError, match=f"{other}: not a whole .npz matrix file"):
            read_npz(tmp_path / other, IMPORTED)


def test_failed_export_leaves_the_old_file(captioned, tmp_path):
    path = tmp_path / "matrix.npz"
    write_npz(path, captioned(4, 5))
    before = path.read_bytes()
    broken = replace(captioned(4, 5), scores=np.full((4, 20), np.nan))
    with pytest.raises(RankingError, match="not finite"):
        write_npz(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
