"""`bash setup.sh data NAME` whole: miniature archives from a server on loopback, in a copy of the project."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from file_server import serving
from PIL import Image

from corpora.corpus import Corpus
from launch.pipeline import read_pipeline

ROOT = Path(__file__).resolve().parents[2]


def jpeg(number):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (number * 20 % 255, 90, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def karpathy(folders):
    rows = []
    for number, (split, folder) in enumerate(folders):
        sentences = [{"raw": f"picture {number}, {i}", "sentid": 5 * number + i, "imgid": number} for i in range(5)]
        row = {"filename": f"{number}.jpg", "split": split, "imgid": number, "sentids": [], "sentences": sentences}
        rows.append(row | ({"filepath": folder, "cocoid": 100 + number} if folder else {}))
    return json.dumps({"images": rows}).encode()


def miniatures():
    """By the name of the file: archives laid out as the real ones."""
    coco = karpathy([("train", "train2014"), ("restval", "val2014"), ("val", "val2014"), ("test", "val2014")])
    flickr = karpathy([("train", ""), ("val", ""), ("test", "")])
    header = "image_id class_id super_class_id path\n"
    lines = [f"{i + 1} {i // 2 + 1} 1 chair_final/{i}.JPG\n" for i in range(6)]
    products = {
        "Ebay_train.txt": (header + "".join(lines[:4])).encode(),
        "Ebay_test.txt": (header + lines[4] + lines[5]).encode(),
    }
    products |= {f"chair_final/{i}.JPG": jpeg(i) for i in range(6)}
    return {
        "train2014.zip": zipped({"train2014/0.jpg": jpeg(0)}),
        "val2014.zip": zipped({f"val2014/{i}.jpg": jpeg(i) for i in (1, 2, 3)}),
        "caption_datasets.zip": zipped({"dataset_coco.json": coco, "dataset_flickr30k.json": flickr}),
        "flickr30k-images.tar.gz": tarred({f"flickr30k-images/{i}.jpg": jpeg(i) for i in range(3)}),
        "Stanford_Online_Products.zip": zipped({f"Stanford_Online_Products/{name}": data for name, data in products.items()}),
        "validation.tar.gz": tarred({f"validation/{i}.jpg": jpeg(i) for i in range(3)}),
    }


@pytest.fixture
def server():
    with serving() as server:
        server.files = {f"/{name}": data for name, data in miniatures().items()}
        yield server


@pytest.fixture
def checkout(tmp_path, server):
    """A copy of the project whose table of sources names the server; its environment is this one."""
    checkout = tmp_path / "checkout"
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]:
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    table = checkout / "preprocess" / "sources.yaml"
    sources = yaml.safe_load(table.read_text())
    for file in (file for files in sources.values() for file in files if "url" in file):
        name = urlsplit(file["url"]).path.rpartition("/")[2]
        data = server.files.get(f"/{name}", b"")
        file["url"] = f"{server.url}/{name}"
        file.update({"size": len(data)} if "size" in file else {})
        file.update({"md5": hashlib.md5(data).hexdigest()} if "md5" in file else {})
    table.write_text(yaml.safe_dump(sources))
    make_environment(checkout)
    return checkout


def make_environment(checkout):
    """What setup.sh takes for an environment in which all is installed."""
    bin_ = checkout / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "pip").write_text("")
    (bin_ / "pip").chmod(0o755)
    (bin_ / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{checkout}"\n')
    stamp = 'echo "$1  $(cat pyproject.toml constraints.txt | cksum)" > .venv/installed'
    gpu = shutil.which("nvidia-smi") and not subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode
    subprocess.run(["bash", "-c", stamp, "bash", "gpu" if gpu else "cpu"], cwd=checkout, check=True)


def setup(checkout, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return subprocess.run(
        ["bash", "setup.sh", "data", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_coco_from_download_to_corpus_and_again(checkout, server):
    done = setup(checkout, "coco")
    assert done.returncode == 0, done.stdout + done.stderr
    corpus = Corpus(checkout / "data" / "coco")
    assert {name: counts["images"] for name, counts in corpus.info["splits"].items()} == {"train": 2, "val": 1, "test": 1}
    assert corpus.split("test").image_ids == ("103",) and len(corpus.split("test").texts) == 5
    assert f"corpus folder: {checkout}/data/coco" in done.stdout
    server.asked.clear()
    assert setup(checkout, "coco").returncode == 0 and not server.asked


def test_a_wrong_download_stops_it_and_the_next_try_goes_on(checkout, server):
    right = server.files["/val2014.zip"]
    server.files["/val2014.zip"] = right[:-1] + b"x"
    done = setup(checkout, "coco")
    assert done.returncode and "val2014.zip: its md5 is" in done.stderr and not (checkout / "data" / "coco").exists()
    assert (checkout / "downloads" / "coco" / "train2014" / "0.jpg").exists()
    server.files["/val2014.zip"] = right
    (checkout / "downloads" / "coco" / "val2014.zip.part").unlink()
    assert setup(checkout, "coco").returncode == 0
    assert not [path for path in (checkout / "downloads").rglob("*") if ".part" in path.name or "unpacking" in path.name]


def test_flickr30k_says_what_to_ask_for_and_goes_on_when_it_is_there(checkout, server):
    done = setup(checkout, "flickr30k")
    assert done.returncode and not server.asked
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "ask for the Flickr30k images" in line and "put flickr30k-images.tar.gz into downloads/flickr30k" in line
    folder = checkout / "downloads" / "flickr30k"
    folder.mkdir(parents=True)
    (folder / "flickr30k-images.tar.gz").write_bytes(server.files["/flickr30k-images.tar.gz"])
    done = setup(checkout, "flickr30k")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Corpus(checkout / "data" / "flickr30k").split("test").image_ids == ("2",)


@pytest.mark.parametrize("name", ["sop", "open-images"])
def test_the_images_without_captions(checkout, name):
    if name == "sop":  # the miniature has two classes to train with
        path = checkout / "jobs" / "data" / "sop.yaml"
        path.write_text(path.read_text().replace("folder: data/sop", "folder: data/sop\n    validation_classes: 1"))
    done = setup(checkout, name)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {split: count["images"] for split, count in Corpus(checkout / "data" / name).info["splits"].items()}
    assert counts == ({"train": 2, "val": 2, "test": 2} if name == "sop" else {"validation": 3})


def test_conceptual_captions_from_lists_to_corpus(checkout, server):
    for name, numbers in (("GCC-training.tsv", (0, 1, 9)), ("GCC-1.1.0-Validation.tsv", (2,))):
        server.files[f"/{name}"] = "".join(f"caption {i}\t{server.url}/{i}.jpg\n" for i in numbers).encode()
    server.files |= {f"/{i}.jpg": jpeg(i) for i in range(3)}
    done = setup(checkout, "conceptual-captions")
    assert done.returncode == 0, done.stdout + done.stderr
    corpus = Corpus(checkout / "data" / "conceptual-captions")
    assert {name: counts["images"] for name, counts in corpus.info["splits"].items()} == {"train": 2, "val": 1}
    logs = [path for path in (checkout / "downloads" / "conceptual-captions").rglob("*") if path.is_file()]
    assert any(f"{server.url}/9.jpg" in path.read_text(errors="replace") for path in logs if path.suffix != ".tsv")


@pytest.mark.parametrize("arguments", [(), ("coko",)])
def test_another_name_is_told_with_those_there_are(checkout, arguments):
    done = setup(checkout, *arguments)
    assert done.returncode and "which corpus? one of: coco conceptual-captions flickr30k open-images sop" in done.stderr


def test_every_pipeline_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in (ROOT / "jobs" / "data").glob("*.yaml"):
        download, corpus = read_pipeline(path, "data", {})
        assert download.plan.config.source == path.stem and str(corpus.plan.config.folder) == f"data/{path.stem}"
