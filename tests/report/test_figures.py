"""Figures draw every number they are given, on the scale they say."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from equigen.report.figures import average_points, axis_limits, curve_figure, display_width, run_styles, wrap_text
from equigen.report.forest import Mark, forest_plot

NAN = float("nan")


def marks(rows, series):
    return [Mark(row, name, 0.1 + i / 100, 0.05 + i / 100, 0.15 + i / 100, floor=0.01)
            for i, row in enumerate(rows) for name in series]  # fmt: skip


def texts(svg):
    return [re.sub("<[^>]+>", "", text) for text in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def test_forest_names_every_group_run_and_axis():
    rows, series = [f"group {i}" for i in range(7)], ["none", "perturbation", "reconstruction"]
    gaps = [Mark("gap", name, 0.06, 0.02, 0.1, null_low=0.0, null_high=0.08) for name in series]
    svg = forest_plot(marks(rows, series), gaps, axis="KD x 1000, lower is better", scale=1000, alt="a", slug="s")
    ElementTree.fromstring(svg)
    shown = texts(svg)
    for text in [*rows, *series, "KD x 1000, lower is better", "gap between groups: KD x 1000",
                 "floor (real against real)", "chance band of the gap"]:  # fmt: skip
        assert text in shown, text


def test_forest_says_once_that_a_group_is_too_small():
    small = [Mark("b", name, NAN, NAN, NAN, remark="too small") for name in ("x", "y")]
    svg = forest_plot([*marks(["a"], ["x", "y"]), *small], [], axis="AUC", scale=1, alt="a", slug="s")
    assert texts(svg).count("too small") == 1


def test_forest_of_nothing_but_holes_is_drawn():
    svg = forest_plot([Mark("a", "x", NAN, NAN, NAN, remark="too small")], [], axis="AUC", scale=1, alt="a", slug="s")
    assert "too small" in texts(svg)


def test_identifiers_carry_the_slug_and_bytes_repeat():
    first, second = (forest_plot(marks(["a"], ["x"]), [], axis="AUC", scale=1, alt="a", slug="f1") for _ in range(2))
    assert first == second
    assert all(name.startswith("f1-") for name in re.findall(r'\bid="([^"]+)"', first))
    assert all(name.startswith("f1-") for name in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', first)[0] if name)


def test_long_curves_are_averaged_not_picked():
    x, y = average_points(np.arange(1000.0), np.arange(1000.0) % 2, limit=100)
    assert len(x) == 100
    np.testing.assert_allclose(y, 0.5)
    np.testing.assert_allclose(x[:2], [4.5, 14.5])


def test_short_curves_stay_as_they_are():
    x, y = average_points(np.arange(5.0), np.array([1.0, 2, 3, 4, 5]))
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert y.tolist() == [1, 2, 3, 4, 5]


def test_axis_forgets_the_first_tenth_only():
    frame = pd.DataFrame({"images_seen": [0, 10, 50, 100], "value": [9.0, 1.0, 0.5, NAN]})
    np.testing.assert_allclose(axis_limits([frame], 0.1), (0.475, 1.025))
    np.testing.assert_allclose(axis_limits([frame]), (0.075, 9.425))
    assert axis_limits([]) is None


def test_curves_leave_unknown_values_out():
    frame = pd.DataFrame({"images_seen": [0, 1000, 2000], "value": [1.0, NAN, 0.5]})
    svg = curve_figure({"none": frame}, run_styles(["none"]), axis="loss", alt="a", slug="c")
    assert "none" in texts(svg)
    assert "nan" not in svg.lower()


def test_runs_are_told_apart_without_colour():
    style = run_styles(["real", "reconstruction", "none", "perturbation", "group_dro"])
    assert len({(look.marker, look.filled) for look in style.values()}) == 5
    assert style["real"].filled is False


def test_no_two_runs_look_alike_however_many_there_are():
    style = list(run_styles([f"run {place}" for place in range(60)]).values())
    assert len({(look.color, look.marker) for look in style}) == 60
    first = style[:8]  # as many mechanisms as there are: each has colour and marker for itself
    assert len({look.color for look in first}) == len({look.marker for look in first}) == 8


def test_long_names_wrap():
    assert wrap_text("native hawaiian or other pacific islander", 22).count("\n") == 1
    assert max(map(len, wrap_text("x" * 70, 22).split("\n"))) == 22


def test_names_in_other_scripts_stay_text_and_bring_no_warning():
    names = ["女", "男性患者群体患者群体患者群体", "أنثى", "여성", "หญิง"]
    svg = forest_plot(marks(names, ["none"]), [], axis="AUC", scale=1, alt="a", slug="s")
    ElementTree.fromstring(svg)
    shown = "".join(texts(svg))
    assert all(name in shown for name in names)


def test_wide_letters_take_two_columns():
    assert display_width("男 men") == 6
    assert max(map(display_width, wrap_text("男" * 40, 22).split("\n"))) <= 22
