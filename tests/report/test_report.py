"""The page stands alone, is the same twice, hides no hole in the data, and lets no text become markup."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_rows import fairness_row, quality_row

import equigen
from equigen.errors import InputError
from equigen.report import Grid, report, write_report
from equigen.report.study.sections import training_section
from equigen.report.tables import counts_tables

NAN = float("nan")
VOID = {"meta", "img", "link", "br", "path", "use", "rect"}
NOTHING = {"title": "Nothing", "summary_facts": {}, "counts": None, "quality": None, "fairness": None}


class Reader(HTMLParser):
    """Collects tags, attributes, identifiers and text; refuses tags that do not close in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.ids, self.open, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.links += [values[name] for name in ("src", "href", "srcset", "data", "action") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(everything, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), **everything)


def test_page_needs_nothing_from_outside(page):
    reader, text = read(page), page.read_text()
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "link" not in {tag for tag, _ in reader.tags}
    assert {link.split(":")[0] if link.startswith("data:") else link[0] for link in reader.links} == {
        "#",
        "data",
    }
    assert not re.findall(r"https?://|@import|url\((?!#)", text)


def test_identifiers_are_unique_and_links_lead_to_them(page):
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)


def test_every_figure_has_words_for_those_who_do_not_see_it(page):
    figures = [values for tag, values in read(page).tags if tag in {"svg", "img"}]
    assert len(figures) > 15
    assert all(values.get("alt") or values.get("aria-label") for values in figures)


def test_phantom_is_marked_in_every_output(page):
    for name in ("index.html", "report.json", "model_card.md", "dataset_card.md"):
        assert "phantom" in (page.parent / name).read_text().lower(), name
    assert "not about patients" in page.read_text()


def test_no_hole_is_printed_as_a_number(page):
    text = " ".join(read(page).text)
    assert not re.findall(r"(?<![\w])(nan|NaN|inf|None|<NA>)(?![\w])", text)
    assert "too small: 12 patients, 30 needed" in text


def test_json_holds_the_tables(page, everything):
    data = json.loads((page.parent / "report.json").read_text())
    for name in ("quality", "fairness", "counts", "comparison"):
        back = pd.DataFrame(data[name]["rows"], columns=data[name]["columns"])
        frame = everything["differences" if name == "comparison" else name]
        given = frame.astype(object).where(frame.notna(), None)
        assert list(back.columns) == list(given.columns)
        assert back.astype(object).where(back.notna(), None).values.tolist() == given.values.tolist()
    assert data["settings"]["training"]["images"] == 40_000
    assert data["timings"] == {"train": 212.4, "evaluate": 33.0}
    assert data["phantom"] is True


def test_sections_come_in_order(page):
    titles = [values["id"] for tag, values in read(page).tags if tag == "section" and "id" in values]
    wanted = ["short", "data", "images", "training", "quality", "memorisation", "semantic", "compared"]
    wanted += ["diagnosis", "reading", "settings"]
    assert titles == wanted


def test_same_arguments_same_bytes(tmp_path, grids, history):
    content = NOTHING | {
        "quality": pd.DataFrame([quality_row("none", "sex", "f", 0.3), quality_row("none", "sex", "gap", 0.1)]),
        "grids": grids,
        "history": {"none": history["none"].query("attribute == '*'")},
    }
    first, second = write_report(tmp_path / "a", **content), write_report(tmp_path / "b", **content)
    for name in ("index.html", "report.json", "model_card.md", "dataset_card.md"):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes(), name


def test_text_of_tables_stays_text(tmp_path):
    bad = "<script>alert('x')</script>\"--> | $a$ `b`"
    small = {"estimate": NAN, "ci_low": NAN, "ci_high": NAN, "note": bad}
    counts = pd.DataFrame([{"label": bad, "level": bad, "attribute": bad, "group": bad, "split": bad, "images": 3}])
    past = pd.DataFrame([(s, "probe_heldout", bad, bad, 0.5) for s in (0, 10)],
                        columns=["images_seen", "kind", "attribute", "group", "value"])  # fmt: skip
    path = write_report(
        tmp_path, title=bad, summary_facts={bad: bad}, counts=counts, warnings=[bad], settings={bad: bad},
        quality=pd.DataFrame([quality_row(bad, bad, bad, 0.2), quality_row(bad, bad, "b", 0, more=small)]),
        fairness=pd.DataFrame([fairness_row(bad, bad, bad, 0.8, task=bad)]), history={bad: past},
        grids=[Grid(bad, [bad], np.zeros((1, 1, 8, 8, 3), np.uint8), {}, bad)], timings={bad: 1.0},
        versions={bad: bad},
    )  # fmt: skip
    assert "script" not in {tag for tag, _ in read(path).tags}
    assert "<script" not in path.read_text()
    for name in ("model_card.md", "dataset_card.md"):
        prose = (tmp_path / name).read_text().split("```json")[0]
        assert "<script" not in prose
        assert "&lt;script&gt;" in prose


def test_nothing_given_is_said_section_by_section(tmp_path):
    path = write_report(tmp_path, **NOTHING)
    text = " ".join(read(path).text)
    assert "Image quality was not evaluated." in text
    assert "No diagnostic model was evaluated." in text
    assert all(f"{what} given." in text for what in ("counts were not", "No images were", "history was"))
    assert json.loads((tmp_path / "report.json").read_text())["quality"] is None
    assert "PHANTOM" not in text


def test_empty_tables_are_as_good_as_none(tmp_path, quality, fairness):
    path = report(quality.iloc[:0], fairness.iloc[:0], path=tmp_path, title="Empty")
    assert "Image quality was not evaluated." in path.read_text()
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_missing_column_is_named_and_nothing_is_written(tmp_path):
    frame = pd.DataFrame([quality_row("none", "sex", "f", 0.3)]).drop(columns=["run", "estimate"])
    with pytest.raises(InputError) as caught:
        report(frame, path=tmp_path / "out")
    assert [problem.column for problem in caught.value.problems] == ["run", "estimate"]
    assert not (tmp_path / "out").exists()


def test_optional_columns_may_be_missing(tmp_path):
    rows = [{"run": "none", "metric": "kd", "attribute": "sex", "group": g, "estimate": 0.25} for g in "fm"]
    text = report(pd.DataFrame(rows), path=tmp_path).read_text()
    assert "250" in text
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_integers_with_holes_are_read(tmp_path):
    rows = pd.DataFrame([quality_row("none", "sex", "f", 0.3), quality_row("none", "sex", "m", 0.2)])
    rows["matched_n"] = pd.array([100, None], dtype="Int64")
    report(rows, path=tmp_path)
    back = json.loads((tmp_path / "report.json").read_text())["quality"]
    column = back["columns"].index("matched_n")
    assert [row[column] for row in back["rows"]] == [100, None]


def test_many_tasks_fold_all_but_the_summaries(tmp_path):
    tasks = ["dx:macro", "dx:high_risk", *(f"dx:{letter}" for letter in "abcdefg")]
    rows = [fairness_row("real", "sex", group, 0.8, task=task) for task in tasks for group in ("f", "m")]
    text = report(None, pd.DataFrame(rows), path=tmp_path).read_text()
    assert "<h3>dx:macro</h3>" in text
    assert "<h3>dx:high_risk</h3>" in text
    assert all(f"<summary>dx:{letter}</summary>" in text for letter in "abcdefg")


def test_recipes_are_read_against_the_baseline(tmp_path):
    pair = {"difference_to": "real", "difference": 0.04, "difference_low": 0.01, "difference_high": 0.07}
    band = {"null_low": 0.7, "null_high": 0.8}
    rows = [fairness_row("mix", "*", "*", 0.84, **pair), fairness_row("mix", "sex", "es", 0.65, **band)]
    text = report(None, pd.DataFrame([fairness_row("real", "*", "*", 0.8), *rows]), path=tmp_path).read_text()
    assert '<th scope="col">difference to real</th>' in text
    assert '<td>+0.040 (0.010 to 0.070)</td><td class="beyond">better</td>' in text
    assert '<td class="beyond">beyond chance</td>' in text  # an ES-AUC below its band


def test_kd_is_shown_times_a_thousand_and_says_so(tmp_path):
    text = report(pd.DataFrame([quality_row("none", "*", "*", 0.2264)]), path=tmp_path).read_text()
    assert "<td>226<small>206 to 246; excess 225</small></td>" in text
    assert "Kernel distance (KD), shown x 1000" in text


def test_floor_of_a_score_is_what_real_images_reach(tmp_path):
    score = pd.DataFrame([quality_row("none", "*", "*", 2.5, metric="is", floor=3.25, excess=NAN)])
    text = report(score, path=tmp_path).read_text()
    assert '<th scope="col">real images score</th>' in text
    assert "<td>3.25</td><td>2.50<small>2.48 to 2.52</small></td>" in text
    assert "excess over the floor" not in text


def test_counts_add_up_over_splits_and_small_cells_are_marked(tmp_path):
    cell = {"label": "dx", "level": "mel", "attribute": "sex", "group": "f"}
    counts = pd.DataFrame([
        cell | {"split": "train", "domain": "id", "images": 90, "patients": 60, "small": False},
        cell | {"split": "test", "domain": "id", "images": 20, "patients": 12, "small": True},
        cell | {"split": "test", "domain": "ood", "images": 5, "patients": 5, "small": True},
        cell | {"group": "m", "split": "train", "domain": "id", "images": 0, "patients": 0, "small": True},
    ])  # fmt: skip
    text = report(path=tmp_path, counts=counts).read_text()
    assert '<td class="small">115 (77)<small>small: test, test (ood)</small></td>' in text
    assert '<td class="missing">0</td>' in text


def test_counts_of_all_images_are_the_first_column(counts):
    whole = counts.assign(label="*", level="*").drop_duplicates(["attribute", "group", "split"])
    tables = counts_tables(pd.concat([whole, counts]))
    assert [table.head for table in tables] == [["group", "all", "healthy", "glaucoma"]]


def test_grid_of_the_wrong_shape_is_refused():
    real = np.zeros((2, 3, 8, 8, 3), np.uint8)
    with pytest.raises(InputError) as caught:
        Grid("faces", ["f", "m"], real, {"none": real[:1], "fair": real.astype(float)})
    assert ["'none'" in p.message or "'fair'" in p.message for p in caught.value.problems] == [True, True]


def test_large_images_are_shrunk_for_the_page(tmp_path):
    grid = Grid("Large", ["f"], np.zeros((1, 2, 300, 150, 3), np.uint8))
    text = report(path=tmp_path, grids=[grid]).read_text()
    assert 'width="130" alt="2 real images, f"' in text  # two images of 64 x 128 with 2 pixels between
    assert "Shown at 128 pixels or less" in text


def test_notes_are_gathered_by_kind(tmp_path):
    notes = ["3 of 500 replicates lost; phantom", "7 of 500 replicates lost", "phantom"]
    rows = [quality_row("none", "sex", str(place), 0.3, note=note) for place, note in enumerate(notes)]
    text = report(pd.DataFrame(rows), path=tmp_path).read_text()
    assert "3 of 500 replicates lost</th><td>quality</td><td>2<small>numbers differ</small></td>" in text
    assert "phantom</th><td>quality</td><td>2</td>" in text


def test_name_on_the_package_stays_callable_after_the_room_is_imported(tmp_path):
    for place in ("first", "second"):  # the second look-up finds the module, not the function
        assert equigen.report(path=tmp_path / place) == tmp_path / place / "index.html"


def test_what_a_mechanism_decides_is_drawn_per_group():
    rows = [(seen, "weight", "sex", group, value) for seen in (0, 100) for group, value in (("f", 1.5), ("m", 0.75))]
    frame = pd.DataFrame(rows, columns=["images_seen", "kind", "attribute", "group", "value"])
    section = training_section({"reweight": frame})
    block = next(block for block in section.blocks if block.title == "Weight of each group")
    assert [picture.caption for picture in block.pictures] == ["reweight, by sex"]
    assert "f" in block.pictures[0].svg and "1.5" in block.pictures[0].svg
    assert not any("Sigma" in other.title for other in section.blocks)
