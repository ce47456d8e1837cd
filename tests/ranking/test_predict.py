from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_model import IMAGES, TinyInputs, TinyModel, provenance, split

from corpora.corpus import Corpus, CorpusError
from corpora.synthetic import make_scenes
from ranking.engine import Engine
from ranking.evaluate import evaluate
from ranking.matrix import RankingError, config_json, read_ranking
from ranking.npz import read_npz
from ranking.options import RankingOptions
from ranking.predict import predict, ranked_split, validation_figures
from training.weights import weights_digest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, {"test": 6, "val": 4}, size=32)
    return Corpus(folder)


def ids_file(path: Path, ids: tuple[str, ...]) -> Path:
    path.write_text("\n".join(ids) + "\n")
    return path


def predicted(run_dir: Path, model: TinyModel | None = None, **options: object) -> dict[str, object]:
    given = RankingOptions(corpus=Path("data/made-up"), **options)  # type: ignore[arg-type]
    wanted = split() if given.image_ids is None else split().subset(given.image_ids.read_text().split())
    engine = Engine(model or TinyModel(), TinyInputs(), wanted)
    return predict(engine, "Tiny", "runs/tiny/best", given, run_dir, "abc")


def test_everything_is_written(tmp_path, capsys):
    result = predicted(tmp_path, npz=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "ranking-test.h5", "ranking-test.npz"]
    ranking = read_ranking(tmp_path / "ranking-test.h5")
    assert json.loads((tmp_path / "metrics.json").read_text()) == result == evaluate(ranking)
    made = ranking.provenance
    assert (made.model, made.checkpoint, made.corpus, made.split) == ("Tiny", "runs/tiny/best", "data/made-up", "test")
    assert (made.digest, made.weights, made.revision) == (split().digest, weights_digest(TinyModel()), "abc")
    assert made.score_meaning == "made-up logit"
    assert made.config == config_json(RankingOptions(corpus=Path("data/made-up"), npz=True))
    back = read_npz(tmp_path / "ranking-test.npz", made)
    np.testing.assert_array_equal(back.scores, ranking.rows(0, IMAGES))
    said = capsys.readouterr().out
    assert "Tiny on data/made-up, split test: 67 images" in said
    assert f"ranking file: {tmp_path / 'ranking-test.h5'}" in said


def test_the_npz_is_written_on_request_only(tmp_path):
    predicted(tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_protocol_fixed_ranks_the_listed_images_alone(tmp_path):
    """Their scores and figures are those of the whole ranking restricted to them."""
    listed = split().image_ids[3:50:4]
    path = ids_file(tmp_path / "ids.txt", listed)
    for folder in ("few", "all"):
        (tmp_path / folder).mkdir()
    few = predicted(tmp_path / "few", protocol="fixed", image_ids=path)
    predicted(tmp_path / "all")
    ranking, whole = (read_ranking(tmp_path / folder / "ranking-test.h5") for folder in ("few", "all"))
    assert ranking.queries.ids == listed
    np.testing.assert_allclose(ranking.rows(0, 12), whole.select(listed, ranking.items.ids).rows(0, 12), atol=1e-6)
    assert few["figures"] == evaluate(whole, "fixed", image_ids=path)["figures"]
    assert few["protocol"] == {"name": "fixed", "images": 12}


def test_the_same_run_again(tmp_path):
    first = predicted(tmp_path)
    model = TinyModel()
    (tmp_path / "metrics.json").unlink()
    assert predicted(tmp_path, model) == first
    assert model.calls == []
    assert (tmp_path / "metrics.json").exists()
    with pytest.raises(RankingError, match="holds the ranking of another weights"):
        predicted(tmp_path, TinyModel(seed=1))


def test_ranked_split(corpus, tmp_path):
    def of(**options: object) -> tuple[str, ...]:
        return ranked_split(corpus, RankingOptions(**options), "none").image_ids  # type: ignore[arg-type]

    test = corpus.split("test").image_ids
    assert of() == test
    assert of(split="val") == corpus.split("val").image_ids
    assert of(protocol="folds", fold_size=3) == test
    assert of(protocol="fixed", image_ids=ids_file(tmp_path / "ids.txt", test[4:1:-1])) == test[2:5]


def test_what_cannot_be_ranked_is_said_before_anything_is_computed(corpus, tmp_path):
    for options, error, said in (
        ({"split": "tset"}, CorpusError, "did you mean 'test'"),
        ({"protocol": "folds", "fold_size": 4}, RankingError, "--fold-size 4: the 6 images of split test do not divide"),
        (
            {"protocol": "fixed", "image_ids": ids_file(tmp_path / "a", ("x",))},
            CorpusError,
            "1 of the listed images are not in it",
        ),
        ({"protocol": "fixed", "image_ids": tmp_path / "b"}, RankingError, "no list of ids"),
    ):
        with pytest.raises(error, match=said):
            ranked_split(corpus, RankingOptions(**options), "none")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"protocol": "fixed"}, "--protocol fixed needs --image-ids, a file with one image id a line"),
        ({"image_ids": Path("x")}, "--protocol all takes no --image-ids"),
        ({"pair_batch": 0}, "--pair-batch 0: must be 1 or more"),
        ({"fold_size": -1}, "--fold-size -1: must be 1 or more"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        RankingOptions(**options)


def test_validation_figures():
    engine = Engine(TinyModel(), TinyInputs(), split())
    figures = validation_figures(engine)
    result = evaluate(engine.rank_in_memory(provenance(TinyModel())))["figures"]
    assert list(figures) == ["rsum", *(f"{way}_R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))]
    assert figures["i2t_R@5"] == result["i2t"]["R@5"] and figures["t2i_R@10"] == result["t2i"]["R@10"]
    assert figures["rsum"] == pytest.approx(sum(value for name, value in figures.items() if name != "rsum"))
    assert 0 < figures["rsum"] < 600
