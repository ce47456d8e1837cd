"""The table of sources."""

from __future__ import annotations

import pytest
import yaml

from preprocess.sources import TABLE, SourceError, SourceFile, read_source, refuse_missing


@pytest.mark.parametrize("name", yaml.safe_load(TABLE.read_text()))
def test_every_source_of_the_table_can_be_read(name):
    files = read_source(name)
    assert len({file.name for file in files}) == len(files) > 0
    assert len({file.unpack for file in files if file.unpack}) == sum(bool(file.unpack) for file in files)
    for file in files:
        assert file.url.startswith(("http://", "https://")) or file.by_hand
        assert all(len(digest) == {"md5": 32, "sha256": 64}[kind] for kind, digest in file.digests.items())


def test_an_unknown_source_is_told_with_those_there_are():
    with pytest.raises(SourceError, match=r"no source 'coko' \(did you mean 'coco'\?\); sources: coco, flickr30k"):
        read_source("coko")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"url": "http://x/a", "unpak": "b"}, "file 1: 'unpak' means nothing here; allowed: by_hand"),
        ({"name": "a"}, "either a url or by_hand"),
        ({"url": "http://x/"}, "needs a name"),
        ({"url": "http://x/a", "unpack": "../a"}, "must stay"),
        ({"url": "http://x/a", "name": "b/a"}, "must stay"),
    ],
)
def test_a_wrong_row_is_told(tmp_path, row, message):
    table = tmp_path / "sources.yaml"
    table.write_text(yaml.safe_dump({"x": [row]}))
    with pytest.raises(SourceError, match=message):
        read_source("x", table)


def test_what_only_the_user_can_get_is_one_line_until_it_is_there(tmp_path):
    file = SourceFile("a.tar", by_hand="ask at https://x", unpack="images")
    with pytest.raises(SourceError, match=r"^x: ask at https://x, and put a\.tar into .*; then give the same command again$"):
        refuse_missing("x", [file], tmp_path)
    (tmp_path / "a.tar").touch()
    refuse_missing("x", [file], tmp_path)
    (tmp_path / "a.tar").unlink()
    (tmp_path / "images").mkdir()
    refuse_missing("x", [file], tmp_path)
