"""Mutants of every annotation format: a clear error that names the file, or exactly what the mutant says; nothing else, and at once."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest
import torch

from corpora.corpus import CorpusError
from corpora.store import StoreError
from preprocess import coco_ir, conceptual_captions, image_folder, image_lists, lxmert_json, products, text_corpus, uniform_json

MUTANTS = 400
NUMBERS = [
    b"0",
    b"-1",
    b"7",
    b"1.5",
    b"1e400",
    b"NaN",
    b"null",
    b"true",
    b"99999999999999999999999",
    b'"x"',
    b"\xef\xbc\x97",
    b"",
]


def pt(**options):
    def write(path):
        torch.save({9: ["A cat.", "Two cats"], 25: json.dumps(["A dog", "ö"]), "391895": ["x"]}, path, **options)

    return write


def text(content):
    return lambda path: path.write_bytes(content.encode())


def lxmert_rows():
    rows = [
        {"img_id": f"COCO_val2014_{k:012}", "labelf": {"vqa": [{"yes": 1}]}, "sentf": {"mscoco": [f"Text {k} é", "b"]}}
        for k in range(1, 5)
    ]
    return json.dumps([*rows, {"img_id": 2370799, "sentf": {"mscoco": ["g"], "vg": ["h"]}}], indent=1)


def uniform_rows():
    return json.dumps({str(k): {"image_path": f"images/{k}.jpg", "captions": [f"Text {k}", "ö"]} for k in range(5)}, indent=1)


def listed(entries):
    return [(entry.id, entry.split, tuple(caption.text for caption in entry.captions)) for entry in entries]


def products_of(path):
    (path.parent / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n9 90 1 bicycle_final/z.JPG\n")
    return listed(products.read_entries(path.parent, Path("images"), 0, "sop"))


FORMATS = {
    "coco_ir": ("train_captions.pt", pt(), coco_ir.read_captions),
    "coco_ir, old": ("train_captions.pt", pt(_use_new_zipfile_serialization=False), coco_ir.read_captions),
    "lxmert": (
        "mscoco_train.json",
        text(lxmert_rows()),
        lambda path: listed(lxmert_json.read_entries({"train": [path]}, Path("images"), ["mscoco"])),
    ),
    "uniform": (
        "train_image_captions.json",
        text(uniform_rows()),
        lambda path: listed(uniform_json.read_entries({"train": path}, Path("images"), "", False)),
    ),
    "products": (
        "Ebay_train.txt",
        text(
            "image_id class_id super_class_id path\n"
            + "".join(f"{k} {k // 2 + 1} 1 bicycle_final/{k}.JPG\n" for k in range(1, 9))
        ),
        products_of,
    ),
    "conceptual": (
        "train.tsv",
        text("".join(f"Caption {k} é\thttp://host/{k}.jpg\n" for k in range(8))),
        lambda path: list(conceptual_captions.read_pictures({"train": path}).values()),
    ),
    "csv": (
        "c.csv",
        text("file,caption\n" + "".join(f'{k}.jpg,"A ""cat"" é, {k}"\n' for k in range(8))),
        image_folder.read_caption_table,
    ),
    "tsv": (
        "c.tsv",
        text("file\tcaption\n" + "".join(f"{k}.jpg\tA cat é {k}\n" for k in range(8))),
        image_folder.read_caption_table,
    ),
    "jsonl": (
        "c.jsonl",
        text("".join(json.dumps({"file": f"{k}.jpg", "caption": f"é {k}"}) + "\n" for k in range(8))),
        image_folder.read_caption_table,
    ),
    "texts": ("t.txt", text("".join(f"Text {k} é\n" for k in range(9))), lambda path: list(text_corpus.read_texts(path, "test"))),
    "texts, jsonl": (
        "t.jsonl",
        text("".join(json.dumps({"id": k, "text": f"é {k}"}) + "\n" for k in range(9))),
        lambda path: list(text_corpus.read_texts(path, "test")),
    ),
    "list": ("test_img_keys.tsv", text("".join(f"{k}\n" for k in range(100, 120))), image_lists.read_image_list),
}


def mutant(data: bytes, chance: random.Random) -> bytes:
    """One damage of the kinds that downloads, editors and scripts do."""
    start, end = sorted(chance.sample(range(len(data) + 1), 2))
    lines = data.splitlines(keepends=True)
    line = chance.randrange(len(lines))
    numbers = list(re.finditer(rb"\d+", data)) or [re.match(b"", data)]
    number = chance.choice(numbers)
    return chance.choice(
        [
            data[:start],
            data[:start] + data[end:],
            data[:start] + bytes([data[start % len(data)] ^ 1 << chance.randrange(8)]) + data[start + 1 :],
            data[:start] + bytes(chance.choices(range(256), k=chance.randint(1, 4))) + data[start:],
            data[: number.start()] + chance.choice(NUMBERS) + data[number.end() :],
            b"".join([*lines[:line], lines[line], *lines[line:]]),
            b"".join([*lines[:line], *lines[line + 1 :]]),
        ]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_mutants(kind, tmp_path):
    name, write, read = FORMATS[kind]
    path = tmp_path / name
    write(path)
    data, whole = path.read_bytes(), read(path)
    chance = random.Random(kind)
    refused = 0
    for number in range(MUTANTS):
        path.write_bytes(mutant(data, chance))
        start = time.monotonic()
        try:
            result = read(path)
        except (CorpusError, StoreError) as error:
            refused += 1
            assert name in str(error) or str(tmp_path) in str(error), f"mutant {number}: {error}"
            assert len(str(error)) < 1500, f"mutant {number}"
        else:
            assert type(result) is type(whole), f"mutant {number}"
        assert time.monotonic() - start < 2, f"mutant {number}"
    assert refused > MUTANTS // 8


LINES = {kind: case for kind, case in FORMATS.items() if kind not in ("coco_ir", "coco_ir, old", "lxmert", "uniform")}
HEADERS = {"products": 1, "csv": 1, "tsv": 1}


def rows_of(result):
    """The rows of a result, whatever it is, as texts."""
    if isinstance(result, dict):
        return [(file, caption) for file, captions in result.items() for caption in captions]
    if result and isinstance(result[0], conceptual_captions.Picture):
        return [(picture.url, caption) for picture in result for _, caption in picture.rows]
    if result and hasattr(result[0], "text"):
        return [caption.text for caption in result]
    return result


@pytest.mark.parametrize("kind", LINES)
def test_a_row_that_is_dropped_or_doubled_changes_no_other(kind, tmp_path):
    name, write, read = LINES[kind]
    path = tmp_path / name
    write(path)
    lines, whole = path.read_bytes().splitlines(keepends=True), rows_of(read(path))
    for line in range(HEADERS.get(kind, 0), len(lines)):
        row = whole[line - HEADERS.get(kind, 0)]
        path.write_bytes(b"".join([*lines[:line], *lines[line + 1 :]]))
        assert sorted(rows_of(read(path))) == sorted(other for other in whole if other != row)
        path.write_bytes(b"".join([*lines[: line + 1], *lines[line:]]))
        try:
            doubled = rows_of(read(path))
        except (CorpusError, StoreError) as error:
            assert "more than once" in str(error)
        else:
            assert sorted(doubled) == sorted([*whole, row])


@pytest.mark.parametrize("kind", ["lxmert", "uniform"])
def test_a_key_that_stands_twice_is_never_dropped(kind, tmp_path):
    name, write, read = FORMATS[kind]
    path = tmp_path / name
    write(path)
    rows = path.read_text()
    for key in re.finditer(r'"(\w+)": ', rows):
        path.write_text(rows[: key.start()] + f'"{key[1]}": 0, ' + rows[key.start() :])
        with pytest.raises(CorpusError, match="stands twice in one object"):
            read(path)
