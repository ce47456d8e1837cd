"""Long work in pieces that several jobs share."""

from __future__ import annotations

import pytest

from corpora.pieces import Part, Pieces
from corpora.store import StoreError


def write(pieces: Pieces, *numbers: int) -> None:
    for number in numbers:
        with pieces.writing(number) as aside:
            aside.write_text(str(number))


def test_pieces_are_missing_until_they_are_whole(tmp_path):
    pieces = Pieces(tmp_path / "p", 3, {"of": "a"})
    write(pieces, 1)
    with pytest.raises(KeyError), pieces.writing(0) as aside:
        aside.write_text("half")
        assert pieces.missing() == [0, 2]
        raise KeyError
    assert pieces.missing() == [0, 2] and not pieces.whole
    write(pieces, 0, 2)
    assert pieces.whole and [pieces.path(number).read_text() for number in range(3)] == ["0", "1", "2"]
    pieces.remove()
    assert not list(tmp_path.iterdir())


def test_parts_share_them(tmp_path):
    pieces = Pieces(tmp_path / "p", 7, {})
    shares = [pieces.missing(Part.parse(f"{number}/3")) for number in (1, 2, 3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    write(pieces, 3)
    assert pieces.missing(Part.parse("1/3")) == [0, 6] and pieces.missing(Part.parse("")) == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "a/b", "-1/3", "1/3 "])
def test_what_is_no_part(text):
    with pytest.raises(StoreError, match=f"--part {text}: expected a number and a count, such as 3/8"):
        Part.parse(text)


def test_pieces_of_other_work_are_refused(tmp_path):
    write(Pieces(tmp_path / "p", 3, {"of": "a"}), 1)
    assert Pieces(tmp_path / "p", 3, {"of": "a"}).missing() == [0, 2]
    for count, identity in ((4, {"of": "a"}), (3, {"of": "b"})):
        with pytest.raises(StoreError, match="begun with other options or files; remove the folder"):
            Pieces(tmp_path / "p", count, identity)


def test_the_processes_of_a_job_share_its_part():
    part = Part(2, 3)
    shares = [part.share(rank, 4) for rank in range(4)]
    taken = [[piece for piece in range(60) if piece in share] for share in shares]
    assert sorted(piece for share in taken for piece in share) == [piece for piece in range(60) if piece in part]
