"""Bad input, as a user meets it: one clear message, an exit code that is not 0, and nothing half-written taken for whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from starting import TINY, start, start_alone

from corpora.corpus import Corpus
from corpora.planting import Shares
from corpora.synthetic import make_scenes
from ranking.matrix import Axis, Provenance, Ranking, Relevance, write_ranking


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A made-up corpus of 24 + 8 + 8 small images: read it, do not change it."""
    folder = tmp_path_factory.mktemp("corpora") / "scenes"
    make_scenes(folder, {"train": 24, "val": 8, "test": 8}, size=32, planted=Shares(0, 0, 0))
    return folder


@pytest.fixture(scope="session")
def checkpoints(scenes, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each model, trained for one step: read it, do not change it."""
    here, folder = Path.cwd(), tmp_path_factory.mktemp("training")
    os.chdir(folder)
    try:
        for job, options in TINY.items():
            assert start(job, "--corpus", scenes, "--steps", 1, "--name", "x", *options.split()) == 0
    finally:
        os.chdir(here)
    return {job.partition("_")[0]: folder / f"runs/{job}/x/checkpoints/best" for job in TINY}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corpus(scenes, here) -> Path:
    """A copy of the corpus, to be damaged."""
    shutil.copytree(scenes, here / "data/scenes")
    return here / "data/scenes"


def refused(job: str, *arguments: object) -> str:
    """The one message that a job ends with."""
    message = start(job, *arguments)
    assert isinstance(message, str), f"{job} ended with {message}"
    first, *rest = message.splitlines()
    assert first.startswith("error: ") and "Traceback" not in message
    assert not rest or rest[-1].startswith(("(traceback: ", "  "))
    return first.removeprefix("error: ")


def nothing_left(job: str) -> bool:
    return not list(Path("runs", job).glob("*"))


def cut(path: Path, share: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * share))


# Corpus


@pytest.mark.parametrize("job", ["lxmert_finetune", "lxmert_predict", "clip_finetune", "clip_zero_shot"])
def test_no_corpus(corpus, job):
    assert refused(job, "--corpus", "data/scnes") == (
        "data/scnes: no corpus here (corpus.json is missing); corpora beside it: scenes"
    )
    assert nothing_left(job)


def test_no_corpus_anywhere():
    assert refused("clip_zero_shot", "--corpus", "nowhere/coco").endswith(
        "make one first, for example: python jobs/make_scenes.py"
    )


@pytest.mark.parametrize(
    ("job", "flag"),
    [
        ("lxmert_predict", "--split"),
        ("clip_zero_shot", "--split"),
        ("clip_finetune", "--train-split"),
        ("lxmert_finetune", "--validation-split"),
    ],
)
def test_a_split_that_is_not_there(scenes, job, flag):
    assert refused(job, "--corpus", scenes, flag, "vla").endswith("no split 'vla'; it has train, val, test; did you mean 'val'?")
    assert nothing_left(job)


def test_no_region_features(corpus, checkpoints):
    (corpus / "regions-truth.h5").unlink()
    for job, options in (
        ("lxmert_predict", ["--checkpoint", checkpoints["lxmert"]]),
        ("lxmert_finetune", TINY["lxmert_finetune"].split()),
    ):
        assert refused(job, *options) == "data/scenes: which region features? --regions must name one of: (the corpus has none)"
    assert refused("lxmert_predict", "--checkpoint", checkpoints["lxmert"], "--regions", "frcnn").startswith(
        "data/scenes: no region features 'frcnn'"
    )


@pytest.mark.parametrize("name", ["corpus.json", "images.parquet", "captions.parquet", "images.h5"])
def test_a_truncated_corpus_file(corpus, checkpoints, name):
    cut(corpus / name)
    told = refused("clip_zero_shot", "--checkpoint", checkpoints["clip"])
    assert f"data/scenes/{name}" in told and "again" in told
    assert nothing_left("clip_zero_shot")


def test_truncated_region_features(corpus, checkpoints):
    cut(corpus / "regions-truth.h5")
    assert "data/scenes/regions-truth.h5: not a whole HDF5 file" in refused(
        "lxmert_predict", "--checkpoint", checkpoints["lxmert"]
    )
    assert nothing_left("lxmert_predict")


# Raw downloads


@pytest.fixture
def karpathy(here):
    """karpathy(row, ...): an annotation file of these images, whose pictures exist; the arguments of preprocess_karpathy."""

    def make(*changes: dict) -> list[object]:
        rows = []
        for k, change in enumerate(changes):
            Image.new("RGB", (8, 8)).save(here / f"{k}.png")
            rows.append(
                {"filename": f"{k}.png", "imgid": k, "split": "val", "sentences": [{"raw": "a", "sentid": k, "imgid": k}]}
                | change
            )
        (here / "captions.json").write_text(json.dumps({"images": rows}))
        return ["--annotations", "captions.json", "--images", here, "--folder", "made"]

    return make


def nothing_made(here: Path) -> bool:
    return not (here / "made").exists() and not (here / ".made.part").exists() and nothing_left("preprocess_karpathy")


def test_an_image_that_cannot_be_decoded(here, karpathy, capsys):
    arguments = karpathy({}, {}, {})
    cut(here / "1.png")
    (here / "2.png").unlink()
    message = start("preprocess_karpathy", *arguments)
    first, *rest = str(message).splitlines()
    assert (
        first == "error: made: 2 of 3 images cannot be used; put them right or leave them out with --bad-images skip. The first:"
    )
    assert (
        rest[0].startswith(f"  {here}/1.png: cannot be decoded (image file is truncated")
        and rest[1] == f"  {here}/2.png: no such file"
    )
    assert nothing_made(here)
    assert start("preprocess_karpathy", *arguments, "--bad-images", "skip") == 0
    assert "made: val 1 images and 1 captions; 2 images left out" in capsys.readouterr().out
    assert [row["id"] for row in Corpus("made").info["left_out"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": []}, "captions.json: 1 images have no caption, the first: 1; correct or remove them"),
        (
            {"sentences": [{"raw": " ", "sentid": 1}]},
            "captions.json: image 1, caption 1: the caption is empty; correct or remove it",
        ),
        ({"sentences": [{"raw": "a", "sentid": 1, "imgid": 9}]}, "caption 1 stands under image 1 and names another imgid"),
        ({"sentences": [{"raw": "a", "sentid": 0}]}, "1 caption ids stand there more than once, the first: 0"),
        ({"filename": "0.png"}, "1 image ids stand there more than once, the first: 0"),
        ({"sentences": None}, "captions.json: image 1 is damaged"),
    ],
)
def test_captions_and_images_that_do_not_fit(here, karpathy, change, message):
    assert message in refused("preprocess_karpathy", *karpathy({}, change))
    assert nothing_made(here)


def test_an_annotation_file_that_is_none(here, karpathy):
    arguments = karpathy({})
    assert "nowhere.json: cannot be read (No such file" in refused(
        "preprocess_karpathy", *arguments, "--annotations", "nowhere.json"
    )
    cut(here / "captions.json")
    assert "captions.json: cannot be read as JSON" in refused("preprocess_karpathy", *arguments)
    assert nothing_made(here)


def test_regions_of_other_images(here, karpathy):
    arguments = karpathy({}, {})
    np.savez(here / "regions.npz", files=["0.png"], features=np.zeros((1, 2, 5)), boxes=np.zeros((1, 2, 4)))
    assert start("preprocess_karpathy", *arguments) == 0
    told = refused("import_regions", "--corpus", "made", "--sources", "regions.npz")
    assert "1 of 2 images have no regions in regions.npz, the first: 1" in told
    assert Corpus("made").split("val") and not list(
        Path("made").glob("regions*")
    )  # the corpus is whole, the regions are not there


# Checkpoints


@pytest.mark.parametrize("job", ["lxmert_predict", "clip_zero_shot", "lxmert_finetune", "clip_finetune"])
def test_a_checkpoint_folder_that_is_not_there(scenes, job):
    told = refused(job, "--corpus", scenes, "--checkpoint", "runs/lxmert_finetune/defualt/checkpoints/best")
    assert told == "runs/lxmert_finetune/defualt/checkpoints/best: no such folder"
    assert nothing_left(job)


def test_a_checkpoint_that_the_hub_cannot_give(scenes, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = refused("clip_zero_shot", "--corpus", scenes, "--checkpoint", "nobody/nothing")
    assert told.startswith("nobody/nothing: ") and "save_pretrained wrote, or a name on the Hugging Face hub" in told


def test_a_checkpoint_of_another_model(scenes, checkpoints):
    told = refused("lxmert_predict", "--corpus", scenes, "--checkpoint", checkpoints["clip"])
    assert told.endswith("a clip checkpoint; lxmert is needed")


@pytest.fixture
def damaged(checkpoints, here):
    """damaged(model): a copy of its checkpoint, to be damaged."""

    def copy(model: str) -> Path:
        return Path(shutil.copytree(checkpoints[model], here / "damaged"))

    return copy


def test_truncated_weights(scenes, damaged):
    checkpoint = damaged("clip")
    cut(checkpoint / "model.safetensors")
    assert "weights cannot be read" in refused("clip_zero_shot", "--corpus", scenes, "--checkpoint", checkpoint)
    assert nothing_left("clip_zero_shot")


@pytest.mark.parametrize(("model", "job"), [("lxmert", "lxmert_predict"), ("clip", "clip_zero_shot")])
def test_weights_that_are_not_finite(scenes, damaged, model, job):
    checkpoint = damaged(model)
    weights = load_file(checkpoint / "model.safetensors")
    name = max(weights)
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, checkpoint / "model.safetensors", {"format": "pt"})
    told = refused(job, "--corpus", scenes, "--checkpoint", checkpoint, "--name", "x")
    assert "scores are not finite, the first nan for query" in told and "nothing was ranked" in told
    assert not list(Path(f"runs/{job}/x").glob("ranking-test.h5")) and not Path(f"runs/{job}/x/metrics.json").exists()


# Rankings


@pytest.fixture
def ranking(corpus, here) -> Path:
    """A made-up ranking of the corpus's test split."""
    split = Corpus(corpus).split("test")
    scores = np.random.default_rng(0).random((len(split.image_ids), len(split.texts)), np.float32)
    pairs = Relevance.from_pairs(split.pairs, len(split.image_ids))
    made = Provenance("made up", "", "data/scenes", "test", split.digest, "nothing")
    write_ranking(here / "ranking.h5", Ranking(Axis("image", split.image_ids), Axis("text", split.text_ids), pairs, scores, made))
    return here / "ranking.h5"


def test_a_truncated_ranking(ranking):
    cut(ranking)
    assert "ranking.h5: not a whole ranking file" in refused("error_report", "--rankings", ranking)
    assert nothing_left("error_report")


def test_a_ranking_that_is_not_there_or_half_done(here):
    assert refused("error_report", "--rankings", "none.h5") == "none.h5: no such ranking file"
    (here / "half.h5.part").mkdir()
    assert "half.h5: only half done (0 blocks stand in half.h5.part); run its job again" in refused(
        "error_report", "--rankings", "half.h5"
    )
    assert "--rankings: name at least one" in refused("error_report")


def test_a_ranking_of_another_corpus(ranking, here):
    make_scenes(here / "data/other", {"test": 8}, seed=1, size=32, planted=Shares(0, 0, 0))
    told = refused("error_report", "--rankings", ranking, "--corpus", "data/other")
    assert "another corpus" in told
    assert nothing_left("error_report")


def test_a_ranking_whose_corpus_has_gone(ranking, corpus):
    corpus.rename(corpus.with_name("moved"))
    assert "was ranked on corpus 'data/scenes', which is not here; give its folder with --corpus" in refused(
        "error_report", "--rankings", ranking
    )


# Options


def test_an_unknown_flag(capsys):
    assert start("lxmert_finetune", "--learning-rat", "1e-5") == 2
    told = capsys.readouterr().err
    assert "Unrecognized options: --learning-rat" in told and "--learning-rate" in told.partition("Perhaps you meant")[2]
    assert not Path("runs").exists()


def test_an_unknown_key_in_a_file(here):
    (here / "options.yaml").write_text("batchsize: 3\n")
    told = refused("clip_finetune", "--config", "options.yaml")
    assert told.startswith("options.yaml: unknown option 'batchsize' (did you mean 'batch_size'?); allowed: ")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("job", "arguments", "message"),
    [
        ("clip_zero_shot", ("--protocol", "fixed", "--image-ids", "ids.txt"), "ids.txt: no list of ids"),
        ("clip_zero_shot", ("--protocol", "folds", "--fold-size", 3), "--fold-size 3: the 8 images of split test do not divide"),
        ("lxmert_finetune", ("--precision", "fp16"), "--precision fp16 needs a GPU"),
        ("lxmert_finetune", ("--batch-size", 9, "--accumulate", 2), "--batch-size 9: must be a multiple of 1 processes x 2"),
        ("lxmert_finetune", ("--prob-unaligned", 0), "--prob-unaligned 0"),
        ("make_scenes", ("--train", 0), "at least 1 image a split"),
    ],
)
def test_options_that_do_not_go_together(scenes, checkpoints, job, arguments, message):
    given: list[object] = ["--corpus", scenes] if job != "make_scenes" else []
    if job == "clip_zero_shot":
        given += ["--checkpoint", checkpoints["clip"]]
    elif job == "lxmert_finetune":
        given += TINY[job].split()
    assert message in refused(job, *given, *arguments)


@pytest.mark.parametrize(
    "arguments", [("--batch-size", 0), ("--learning-rate", "nan"), ("--nodes", 0), ("--freeze-language", "False")]
)
def test_options_out_of_range(capsys, arguments):
    """Told before anything starts."""
    assert start("lxmert_finetune", *arguments) == 2
    assert str(arguments[0] if arguments[1] != "False" else "False") in capsys.readouterr().err
    assert not Path("runs").exists()


# Disk


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A disk of this size at the folder."""
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk can only be mounted by root: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_space_left(here):
    """In a process of its own: HDF5 crashes when it is torn down over a full disk."""
    with small_disk(here / "disk", 1600):
        done = start_alone("make_scenes", "--train", 120, "--val", 2, "--test", 2, "--size", 256, folder=here / "disk")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: no space left on the disk") and "Traceback" not in done.stderr
        assert not list((here / "disk/data").iterdir())  # no half corpus
        again = start_alone("make_scenes", "--train", 2, "--val", 2, "--test", 2, "--size", 32, folder=here / "disk")
        assert again.returncode == 0 and "made: data/scenes" in again.stdout
