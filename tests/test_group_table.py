"""Views of a table of groups, by hand."""

import pandas as pd
import pytest

from equigen.group_table import GroupTable

ROWS = pd.DataFrame(
    [
        ("a", "auc", "*", "*", 0.80, 0.75, 0.85, None, "all"),
        ("a", "auc", "sex", "female", 0.82, 0.7, 0.9, None, ""),
        ("a", "auc", "sex", "male", 0.76, 0.6, 0.9, None, "few"),
        ("a", "auc", "sex", "gap", 0.06, 0.01, 0.2, 0.4, ""),
        ("a", "auc", "sex", "es", 0.75, None, None, None, ""),
        ("a", "brier", "*", "*", 0.20, 0.1, 0.3, None, "all"),
        ("a", "brier", "sex", "female", 0.30, 0.1, 0.4, None, ""),
        ("a", "brier", "sex", "male", 0.10, 0.0, 0.2, None, ""),
        ("a", "brier", "sex", "gap", 0.20, 0.1, 0.4, 0.01, ""),
    ],
    columns=["run", "metric", "attribute", "group", "estimate", "ci_low", "ci_high", "p_value", "note"],
)


class Table(GroupTable):
    index_columns = ("run",)
    title = "Numbers"
    worst_is_low = ("auc",)


@pytest.fixture
def table() -> Table:
    return Table(ROWS)


def test_views_hold_the_rows_of_the_table(table):
    assert table.overall.to_dict("records") == [{"auc": 0.80, "brier": 0.20}]
    by_group = table.by_group
    assert by_group.loc[("sex", "male")].to_dict() == {"auc": 0.76, "brier": 0.10}
    assert list(by_group.index) == [("sex", "female"), ("sex", "male")]
    assert table.gaps.loc[("sex", "brier"), "p_value"] == 0.01
    assert len(table.gaps) == 2
    assert table.notes == ["all", "few"]


def test_the_worst_group_depends_on_the_metric(table):
    worst = table.worst
    assert worst.loc[("sex", "auc"), "group"] == "male"
    assert worst.loc[("sex", "brier"), "group"] == "female"


def test_runs_stand_in_the_index_where_there_are_several():
    both = Table(pd.concat([ROWS, ROWS.assign(run="b", estimate=ROWS["estimate"] / 2)], ignore_index=True))
    assert both.overall.loc["b", "auc"] == 0.40
    assert both.by_group.loc[("b", "sex", "female"), "brier"] == 0.15
    assert both.gaps.loc[("a", "sex", "auc"), "estimate"] == 0.06


def test_a_representation_shows_overall_and_gaps(table):
    text = repr(table)
    assert text.startswith("Numbers: 9 rows in .table")
    assert "0.06" in text and "brier" in text
    html = table._repr_html_()
    assert "<table" in html and "female" in html


def test_names_are_escaped_in_html():
    html = Table(ROWS.replace({"group": {"male": "<script>"}}))._repr_html_()
    assert "<script>" not in html
