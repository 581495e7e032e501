from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from quality_images import ColourEncoder, make_images

from equigen.errors import InputError
from equigen.quality import COPIES_COLUMNS, DIFFERENCES_COLUMNS, ImageSet, evaluate

FAST = {
    "replicates": 60,
    "repeats": 2,
    "show": False,
    "min_patients": 20,
    "encoder": ColourEncoder(),
    "metrics": ["fd", "kd", "is"],
}


@pytest.fixture(scope="module")
def result():
    real = make_images(240, 0)
    good = make_images(200, 1, per_patient=1)
    bad = ImageSet(good.frame, np.clip(good.pixels.astype(int) + 40, 0, 255).astype(np.uint8))
    return evaluate(real, {"good": good, "same": ImageSet(good.frame, good.pixels), "bad": bad}, **FAST)


def pick(table: pd.DataFrame, **where: str) -> pd.Series:
    found = table.loc[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_a_set_does_not_differ_from_itself(result):
    own = result.differences.query("run == 'same' and difference_to == 'good'")
    assert len(own) == 3 * 5
    assert (own.difference == 0).all()
    assert (own.ci_low == 0).all()
    assert (own.ci_high == 0).all()
    assert (own.p_value == 1).all()


def test_a_worse_set_is_worse_beyond_its_interval(result):
    assert list(result.differences.columns) == DIFFERENCES_COLUMNS
    for metric in ("fd", "kd"):
        for group in ("*", "a", "b", "es"):
            row = pick(result.differences, run="bad", difference_to="good", metric=metric, group=group)
            assert row.ci_low > 0
            assert row.p_value == pytest.approx(2 / 61)
            values = [pick(result.quality, run=run, metric=metric, group=group).estimate for run in ("bad", "good")]
            assert row.difference == pytest.approx(values[0] - values[1])
            assert (row.estimate, row.reference) == pytest.approx(tuple(values))


def test_pairing_makes_differences_surer_than_their_parts():
    real, made = make_images(240, 0), make_images(200, 1, per_patient=1)
    sets = {
        name: ImageSet(made.frame, np.clip(made.pixels.astype(int) + by, 0, 255).astype(np.uint8))
        for name, by in (("bad", 40), ("worse", 43))
    }
    found = evaluate(real, sets, **FAST)
    row = pick(found.differences, run="worse", metric="kd", group="*")
    errors = [pick(found.quality, run=run, metric="kd", group="*").standard_error for run in sets]
    assert (row.ci_high - row.ci_low) / 3.92 < 0.5 * np.hypot(*errors)


def test_all_sets_share_one_n_and_one_set_alone_has_no_comparison(result):
    assert result.quality.matched_n.nunique() == 1
    real, few = make_images(240, 0), make_images(48, 3, per_patient=1)
    both = evaluate(real, {"many": make_images(200, 1, per_patient=1), "few": few}, **FAST)
    alone = evaluate(real, {"many": make_images(200, 1, per_patient=1)}, **FAST)
    assert both.quality.matched_n.nunique() == 1
    assert both.quality.matched_n.iloc[0] < alone.quality.matched_n.iloc[0]
    assert alone.differences.empty
    assert list(alone.copies.columns) == [*COPIES_COLUMNS, "attr.sex"]
    pd.testing.assert_frame_equal(
        alone.quality, evaluate(real, make_images(200, 1, per_patient=1), run="many", **FAST).table
    )


def two_attributes(images: ImageSet, seed: int) -> ImageSet:
    index = pd.factorize(images.frame.patient)[0]
    ages = np.random.default_rng(seed).choice(["old", "young"], index.max() + 1)[index]
    images.frame["attr.age"] = ages.astype(object)
    return images


def test_intersections_are_a_family_of_their_own():
    real, made = two_attributes(make_images(400, 4), 0), two_attributes(make_images(300, 5, per_patient=1), 1)
    table = evaluate(real, made, **FAST).table
    names = ["a & old", "a & young", "b & old", "b & young", "gap", "es"]
    crossed = table[(table.attribute == "sex & age") & (table.metric == "kd")]
    assert list(crossed.group) == names
    both = real.frame["attr.sex"] + " & " + real.frame["attr.age"]
    assert list(crossed.n_real[:4]) == [(both == name).sum() for name in names[:4]]
    assert (table[table.metric == "kd"].group == "*").sum() == 1
    plain = table[table.attribute != "sex & age"]
    assert crossed.matched_n.iloc[0] < plain.matched_n.iloc[0]
    assert "Holm over 2 attributes" in plain[plain.group == "gap"].note.iloc[0]
    assert "Holm" not in crossed[crossed.group == "gap"].note.iloc[0]
    assert set(evaluate(real, made, intersections=False, **FAST).table.attribute) == {"*", "sex", "age"}


def test_metrics_by_name():
    sides = make_images(100, 6), make_images(80, 7, per_patient=1)
    assert set(evaluate(*sides, **{**FAST, "metrics": ["kd"]}).table.metric) == {"kd"}
    with pytest.raises(InputError, match=r"no metric 'fid'.*did you mean 'fd'"):
        evaluate(*sides, **{**FAST, "metrics": ["fid"]})
    with pytest.raises(InputError, match="'mifid' needs training images"):
        evaluate(*sides, **{**FAST, "metrics": ["mifid"]})
    with pytest.raises(InputError, match="none named real or train"):
        evaluate(sides[0], {}, **FAST)


def test_training_images_bring_memorisation_and_the_closest_pairs():
    real, train, made = make_images(120, 8), make_images(120, 9), make_images(100, 10, per_patient=1)
    made.pixels[:5] = train.pixels[30:35]
    found = evaluate(real, {"mine": made}, train=train, **{**FAST, "metrics": None})
    assert {"fd_inf", "precision", "mifid", "nn_ratio", "authenticity", "near_copies"} <= set(found.quality.metric)
    first = found.copies.head(5)
    assert set(first.generated) == {f"row {i}" for i in range(1, 6)}
    assert set(first.training) == {f"row {i}" for i in range(31, 36)}
    assert first.near_copy.all()
    assert list(first["rank"]) == [1, 2, 3, 4, 5]


def test_monte_carlo_errors_and_standard_errors():
    sides = make_images(240, 11), make_images(200, 12, per_patient=1)
    table = evaluate(*sides, **{**FAST, "repeats": 4}).table
    kd, fd = (pick(table, metric=name, group="*") for name in ("kd", "fd"))
    assert kd.mc_estimate == 0  # exact
    assert fd.mc_estimate > 0
    assert fd.mc_floor > 0
    tables = [evaluate(*sides, **{**FAST, "repeats": 4, "seed": seed}).table for seed in range(8)]
    others = [pick(other, metric="fd", group="*").estimate for other in tables]
    assert 0.2 < np.std(others) / fd.mc_estimate < 5
    gap = pick(table, metric="kd", group="gap")
    assert gap.mc_p == pytest.approx(np.sqrt(gap.p_value * (1 - gap.p_value) / 60))
    assert 0 < kd.mc_interval < kd.standard_error
    assert (kd.ci_high - kd.ci_low) == pytest.approx(3.92 * kd.standard_error, rel=0.35)


def test_a_cell_beyond_the_limit_is_trimmed_and_a_small_one_is_not():
    real = make_images(300, 13, odds=[0.25, 0.75])
    table = evaluate(real, make_images(260, 14, per_patient=1), limit=100, **FAST).table
    small, large = pick(table, metric="kd", group="a"), pick(table, metric="kd", group="b")
    assert small.n_real == (real.frame["attr.sex"] == "a").sum()
    assert "real images, drawn by patient" not in small.note
    assert large.n_real == 100
    assert f"100 of {(real.frame['attr.sex'] == 'b').sum()} real images, drawn by patient" in large.note
    assert pick(table, metric="fd", group="gap").p_value > 0


class Bad(ColourEncoder):
    def __call__(self, images):
        values, classes = super().__call__(images)
        return np.full_like(values, self.fill), classes


def test_constant_features_get_numbers_and_no_false_alarm():
    encoder = Bad()
    encoder.fill = 0.3
    table = evaluate(make_images(120, 15), make_images(100, 16, per_patient=1), **{**FAST, "encoder": encoder}).table
    cells = table[table.metric.isin(["fd", "kd"])]
    assert cells.estimate.to_numpy() == pytest.approx(0, abs=1e-9)
    assert (cells[cells.group == "gap"].p_value == 1).all()


def test_features_that_are_not_finite_are_refused():
    encoder = Bad()
    encoder.fill = np.nan
    with pytest.raises(InputError):
        evaluate(make_images(60, 15), make_images(60, 16, per_patient=1), **{**FAST, "encoder": encoder})


def test_relabelled_groups_and_duplicated_sides_give_the_same_kd():
    real, made = make_images(120, 17), make_images(100, 18)
    table = evaluate(real, made, **FAST).table
    for side in (real, made):
        side.frame["attr.sex"] = side.frame["attr.sex"].map({"a": "z", "b": "b"}).astype(object)
    other = evaluate(real, made, **FAST).table
    for old, new in (("a", "z"), ("b", "b"), ("gap", "gap"), ("es", "es")):
        assert pick(table, metric="kd", group=old).estimate == pytest.approx(
            pick(other, metric="kd", group=new).estimate, abs=1e-12
        )
    twice = [side.take(np.repeat(np.arange(len(side)), 2)) for side in (real, made)]  # within patients
    doubled = evaluate(*twice, **FAST).table
    for group in ("*", "z", "b"):
        assert pick(doubled, metric="kd", group=group).estimate == pytest.approx(
            pick(other, metric="kd", group=group).estimate, abs=1e-9
        )


def test_an_empty_group_has_words():
    real, made = make_images(120, 19), make_images(100, 20, per_patient=1)
    levels = {"sex": ["a", "b", "nobody"]}
    table = evaluate(ImageSet(real.frame, real.pixels, levels), made, **{**FAST, "metrics": None}).table
    empty = table[table.group == "nobody"]
    assert len(empty) == 8
    assert empty.estimate.isna().all()
    assert (empty.note == "too small: 0 patients").all()


def test_jpeg_files_are_warned_about_on_screen_and_in_the_notes(tmp_path, capsys):
    draws, sides = np.random.default_rng(0), {}
    for side, suffix in (("real", "jpg"), ("generated", "png")):
        paths = [tmp_path / f"{side}-{index}.{suffix}" for index in range(24)]
        for path in paths:
            Image.fromarray(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        sides[side] = ImageSet(pd.DataFrame({"path": [str(path) for path in paths]}))
    table = evaluate(
        sides["real"], sides["generated"], encoder=ColourEncoder(), metrics=["kd"], min_patients=10, replicates=20
    ).table
    told = "24 of 24 real images are JPEG"
    assert told in table["note"].iloc[0]
    assert told in capsys.readouterr().err.replace("\n", " ")
