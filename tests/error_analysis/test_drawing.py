from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from error_analysis.drawing import PALETTE, _figure, draw, in_page, two_lines
from error_analysis.section import Plot, Series

SVG = "{http://www.w3.org/2000/svg}"


def plot(kind="line", series=None, **options):
    return Plot("p", '<A> & "B"', kind, "across", "up", series or (Series("a", (1.0, 2.0), (3.0, 4.0)),), **options)


def words(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("kind", "x"), [("line", (1.0, 2.0, 3.0)), ("scatter", (1.0, 2.0, 3.0)), ("bar", ("a", "b", "c")), ("bar", (1.0, 2.0, 3.0)), ("line", ("a", "b", "c"))]
)  # fmt: skip
@pytest.mark.parametrize("ends", [None, (1.0, 1.5, 2.0)])
def test_every_kind_gives_an_svg_and_a_png(kind, x, ends):
    svg, png = draw(
        plot(kind, (Series("one", x, (2.0, 3.0, 4.0), ends, ends and (3.0, 4.0, 5.0)), Series("two", x, (1.0, 0.0, 1.0))))
    )
    found = words(svg)
    assert {"across", "up", "one", "two"} <= set(found)
    assert Image.open(io.BytesIO(png)).size[0] > 800
    element = in_page(svg, "label")
    for colour in (PALETTE[5], PALETTE[4]):
        assert colour.encode() in svg and colour not in element
    assert "var(--m5)" in element and "var(--m4)" in element


def test_a_model_has_its_own_colour_in_every_plot():
    both = tuple(Series(name, (1.0,), (1.0,)) for name in ("second", "other"))
    svg, _ = draw(plot("bar", both), ["first", "second"])
    assert PALETTE[1].encode() in svg and PALETTE[5].encode() in svg and PALETTE[0].encode() not in svg


def test_the_same_plot_is_the_same_file():
    assert draw(plot()) == draw(plot())


def test_a_dollar_is_a_dollar_and_letters_stay_letters():
    svg, _ = draw(plot("bar", (Series("$a_1$ & <b>", ("$x^2$", "图"), (1.0, 2.0)), Series("b", ("$x^2$", "图"), (1.0, 2.0)))))
    assert {"$a_1$ & <b>", "$x^2$", "图"} <= set(words(svg))


def test_in_the_page_it_has_no_size_no_ids_that_clash_and_an_escaped_label():
    element = in_page(draw(plot())[0], '<A> & "B"')
    root = ElementTree.fromstring(element)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == '<A> & "B"'
    assert "viewBox" in root.attrib and not {"width", "height"} & set(root.attrib)
    assert not [group for group in root.iter(f"{SVG}g") if "id" in group.attrib]
    assert all("width" in rectangle.attrib for rectangle in root.iter(f"{SVG}rect"))  # a clip without a size hides all
    assert "<metadata" not in element


def test_many_points_are_pixels():
    def images(count):
        xs = tuple(float(x) for x in range(1, count + 1))
        return draw(plot("scatter", (Series("a", xs, xs),), log_x=True, log_y=True))[0].count(b"<image")

    assert (images(50), images(2001)) == (0, 1)


def test_long_names_lie():
    names = tuple(f"a rather long name {i}" for i in range(20))
    svg, _ = draw(plot("bar", (Series("a", names, tuple(map(float, range(20)))),)))
    places = {text.text: text.attrib for text in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    ys = [float(places[name].get("y") or places[name]["transform"].split(",")[-1].split()[-1].strip(")")) for name in names]
    assert ys == sorted(ys) and len(set(ys)) == 20  # from top to bottom, in the order given


def test_a_long_name_has_two_lines():
    assert two_lines("names: dog") == "names: dog"
    assert two_lines("objects the caption names: above 3") == "objects the caption names:\nabove 3"
    assert two_lines("word " * 20) == "word word word word word\nword word word word word\u2026"
    assert max(map(len, two_lines("w" * 200).split("\n"))) == 26


def test_log_axes_have_plain_numbers():
    svg, _ = draw(plot("line", (Series("a", (1.0, 10.0, 1000.0), (1.0, 2.0, 3.0)),), log_x=True))
    assert {"1", "10", "100", "1,000"} <= set(words(svg))


def test_bars_of_series_with_different_names_stand_at_their_own_names():
    svg, _ = draw(plot("bar", (Series("a", ("x", "y"), (1.0, 2.0)), Series("b", ("y", "z"), (1.0, 2.0)))))
    assert {"x", "y", "z"} <= set(words(svg))
    bars = _figure(plot("bar", (Series("a", ("x", "y"), (1.0, 2.0)), Series("b", ("y", "z"), (1.0, 2.0)))), []).axes[0].patches
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [0, 1, 1, 2]
    assert {"1", "2.5"} <= set(words(draw(plot("bar", (Series("a", (1.0, 2.5), (1.0, 2.0)),)))[0]))


def test_a_plot_without_points():
    for kind in ("line", "bar", "scatter"):
        for log in (False, True):
            draw(Plot("p", "P", kind, "x", "y", (), log_x=log and kind != "bar"))
            draw(plot(kind, (Series("a", (), ()),), log_x=log and kind != "bar"))
