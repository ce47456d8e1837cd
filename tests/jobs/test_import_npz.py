from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.corpus import Caption, Corpus, CorpusWriter, ImageRecord
from corpora.images import write_images
from jobs.import_npz import Config, run
from ranking.matrix import Axis, Kind, Provenance, Ranking, RankingError, Relevance, read_ranking
from ranking.npz import write_npz


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Six images with one to three captions each."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with CorpusWriter(tmp_path / "corpus") as writer:
        write_images(writer.part / "images.h5", [(f"img{i}", picture.getvalue()) for i in range(6)])
        for i in range(6):
            writer.images.append(ImageRecord(f"img{i}", "test", 8, 8))
            writer.captions += [Caption(f"c{i}.{n}", f"caption {n} of {i}", (f"img{i}",)) for n in range(1 + i % 3)]
    return Corpus(tmp_path / "corpus")


def as_the_original_writes(corpus: Corpus, image_ids: list[str], path: Path, rows: Kind) -> Ranking:
    """A made-up matrix whose images stand in this order, each followed by its captions."""
    split = corpus.split("test")
    image_of = {split.text_ids[text]: split.image_ids[image] for image, text in split.pairs}
    text_ids = [text for image in image_ids for text in split.text_ids if image_of[text] == image]
    pairs = np.array([(image_ids.index(image_of[text]), column) for column, text in enumerate(text_ids)])
    ranking = Ranking(
        Axis("image", tuple(image_ids)),
        Axis("text", tuple(text_ids)),
        Relevance.from_pairs(pairs, len(image_ids)),
        np.random.default_rng(1).standard_normal((len(image_ids), len(text_ids))).astype(np.float32),
        Provenance("made up", "", "", "test", "", ""),
    )
    write_npz(path, ranking, rows)
    return ranking


@pytest.mark.parametrize("rows", ["image", "text"])
def test_scores_keep_their_ids_in_either_orientation_and_any_order(corpus: Corpus, tmp_path: Path, rows: Kind) -> None:
    image_ids = ["img4", "img0", "img5", "img2", "img1"]  # five of the six, in an order of their own
    made = as_the_original_writes(corpus, image_ids, tmp_path / "matrix.npz", rows)
    (tmp_path / "ids.tsv").write_text("\n".join(image_ids))
    run(Config(tmp_path / "matrix.npz", corpus.folder, image_ids=tmp_path / "ids.tsv"), tmp_path)
    ranking = read_ranking(tmp_path / "ranking-test.h5")
    assert (ranking.queries, ranking.items) == (made.queries, made.items)
    np.testing.assert_array_equal(ranking.rows(0, 5), made.rows(0, 5))
    assert ranking.provenance.digest == corpus.split("test").subset(image_ids).digest
    assert (tmp_path / "metrics.json").exists()


def test_a_wrong_order_of_images_is_noticed(corpus: Corpus, tmp_path: Path) -> None:
    as_the_original_writes(corpus, ["img4", "img0", "img5", "img2", "img1", "img3"], tmp_path / "matrix.npz", "image")
    with pytest.raises(RankingError, match="--image-ids"):
        run(Config(tmp_path / "matrix.npz", corpus.folder), tmp_path)
    assert not (tmp_path / "ranking-test.h5").exists()
