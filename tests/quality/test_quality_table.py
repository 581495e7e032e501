from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from quality_images import ColourEncoder, make_images

from equigen.errors import InputError
from equigen.quality import COLUMNS, ImageSet, evaluate, frechet_distance, inception_score, kernel_distance

THREE = ["fd", "kd", "is"]
FAST = {"replicates": 60, "repeats": 2, "show": False, "min_patients": 20, "metrics": THREE}


def row(table: pd.DataFrame, metric: str, attribute: str, group: str) -> pd.Series:
    found = table[(table.metric == metric) & (table.attribute == attribute) & (table.group == group)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    real, generated = make_images(240, 0), make_images(200, 1, shift=0.15, per_patient=1)
    return evaluate(real, generated, encoder=ColourEncoder(), run="mine", **FAST).table


def test_the_table_has_the_columns_and_rows_of_the_contract(table):
    assert list(table.columns) == COLUMNS
    assert set(table.metric) == {"fd", "kd", "is"}
    for metric in ("fd", "kd", "is"):
        groups = table[table.metric == metric][["attribute", "group"]].apply(tuple, axis=1).tolist()
        assert groups == [("*", "*"), ("sex", "a"), ("sex", "b"), ("sex", "gap"), ("sex", "es")]
    assert set(table.run) == {"mine"}
    assert table.encoder.str.startswith("colour#").all()
    assert table.matched_n.nunique() == 1


def test_it_survives_a_parquet_file(table, tmp_path):
    table.to_parquet(tmp_path / "quality.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "quality.parquet"), table)


def test_the_shifted_group_is_worse_and_the_gap_is_beyond_chance(table):
    for metric in ("fd", "kd"):
        a, b, gap = (row(table, metric, "sex", name) for name in ("a", "b", "gap"))
        assert a.excess > 5 * abs(b.excess)
        assert a.ci_low > b.ci_high
        assert gap.estimate == pytest.approx(a.estimate - b.estimate)
        assert gap.excess == pytest.approx(a.excess - b.excess)
        assert gap.estimate > gap.null_high
        assert gap.p_value == pytest.approx(1 / 61)


def test_intervals_hold_the_estimate_and_excess_is_estimate_minus_floor(table):
    cells = table[~table.group.isin(["gap", "es"]) & (table.metric != "is")]
    assert (cells.ci_low < cells.estimate).all()
    assert (cells.estimate < cells.ci_high).all()
    assert cells.excess.to_numpy() == pytest.approx((cells.estimate - cells.floor).to_numpy())


def test_equity_scaled_values_follow_their_formula(table):
    for metric in ("fd", "kd"):
        whole, a, b, es = (
            row(table, metric, *key).estimate for key in (("*", "*"), ("sex", "a"), ("sex", "b"), ("sex", "es"))
        )
        assert es == pytest.approx(whole + abs(a - whole) + abs(b - whole))
    whole, a, b, es = (
        row(table, "is", *key).estimate for key in (("*", "*"), ("sex", "a"), ("sex", "b"), ("sex", "es"))
    )
    assert es == pytest.approx(whole / (1 + (abs(a - whole) + abs(b - whole)) / whole))


def test_numbers_are_those_of_the_plain_functions_when_n_is_everything():
    real, generated = make_images(120, 2, per_patient=1), make_images(60, 3, per_patient=1)
    table = evaluate(real, generated, [], encoder=ColourEncoder(), matched_n=60, **FAST).table
    network = ColourEncoder()
    (r, _), (g, classes) = network(real.pixels), network(generated.pixels)
    assert row(table, "kd", "*", "*").estimate == pytest.approx(kernel_distance(r, g), rel=1e-6)
    assert row(table, "is", "*", "*").estimate == pytest.approx(inception_score(classes), rel=1e-6)
    assert row(table, "fd", "*", "*").estimate == pytest.approx(frechet_distance(r[:60], g), rel=0.5)
    same = evaluate(real.take(np.arange(60)), real.take(np.arange(60)), [], encoder=network, matched_n=30, **FAST).table
    assert row(same, "fd", "*", "*").excess == pytest.approx(0, abs=0.02)


def test_unequal_groups_of_one_distribution_show_no_gap_while_raw_fd_ranks_their_sizes():
    raw, matched, chance = [], [], []
    for seed in range(8):
        real = make_images(600, 30 + seed, odds=[0.15, 0.85], per_patient=1, size=4)
        generated = make_images(500, 60 + seed, odds=[0.15, 0.85], per_patient=1, size=4)
        table = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
        matched.append(row(table, "fd", "sex", "a").estimate - row(table, "fd", "sex", "b").estimate)
        chance += [row(table, metric, "sex", "gap").p_value for metric in ("fd", "kd")]
        parts = [
            [ColourEncoder()(side.pixels[(side.frame["attr.sex"] == name).to_numpy()])[0] for side in (real, generated)]
            for name in ("a", "b")
        ]
        raw.append(frechet_distance(*parts[0]) - frechet_distance(*parts[1]))
    assert np.mean(raw) > 3 * np.std(raw) / np.sqrt(8)  # the small group looks worse for its size alone
    assert abs(np.mean(matched)) < 3 * np.std(matched) / np.sqrt(8)
    assert np.mean(np.array(chance) < 0.05) < 0.2


def test_p_values_under_the_null_are_uniform_or_cautious():
    # replicates 19: p has steps of 1/20; a correct p is below 0.25 in a quarter of the cohorts
    p = {"fd": [], "kd": []}
    for seed in range(40):
        real, generated = (
            make_images(80, 100 + seed, size=2),
            make_images(60, 500 + seed, size=2, per_patient=1),
        )
        table = evaluate(
            real,
            generated,
            encoder=ColourEncoder(),
            metrics=["fd", "kd"],
            seed=seed,
            replicates=39,
            repeats=1,
            show=False,
            min_patients=8,
        ).table
        for metric, values in p.items():
            values.append(row(table, metric, "sex", "gap").p_value)
    for metric, values in p.items():
        share = np.mean(np.array(values) <= 0.25)
        assert share <= 0.25 + 3 * np.sqrt(0.25 * 0.75 / 40), metric
        assert np.mean(np.array(values) <= 0.75) >= (0.4 if metric == "fd" else 0.55), metric


def test_rows_in_another_order_and_another_seed_give_the_same_kd():
    real, generated = make_images(120, 6), make_images(100, 7, per_patient=1)
    order = np.random.default_rng(0).permutation(120)
    first = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    second = evaluate(real.take(order), generated, encoder=ColourEncoder(), **{**FAST, "seed": 5}).table
    for group in ("a", "b", "gap", "es"):
        assert row(first, "kd", "sex", group).estimate == pytest.approx(row(second, "kd", "sex", group).estimate)


def test_the_same_seed_gives_the_same_table_and_names_of_groups_do_not_matter():
    real, generated = make_images(120, 8), make_images(100, 9, per_patient=1)
    first = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    pd.testing.assert_frame_equal(first, evaluate(real, generated, encoder=ColourEncoder(), **FAST).table)


def test_small_cells_get_words_and_no_number():
    real = make_images(400, 10, groups=("a", "b", "rare"), odds=[0.48, 0.48, 0.04])
    generated = make_images(300, 11, groups=("a", "b", "rare"), odds=[0.4, 0.4, 0.2], per_patient=1)
    table = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    rare = row(table, "fd", "sex", "rare")
    patients = real.frame[real.frame["attr.sex"] == "rare"].patient.nunique()
    assert rare.note == f"too small: {patients} patients"
    assert np.isnan(rare.estimate)
    assert np.isnan(rare.ci_low)
    gap = row(table, "fd", "sex", "gap")
    assert np.isfinite(gap.estimate)
    assert f"without rare (too small: {patients} patients)" in gap.note


def test_too_few_generated_images_are_said_so_and_one_group_alone_has_no_gap():
    real = make_images(200, 12)
    generated = make_images(100, 13, odds=[0.05, 0.95], per_patient=1)
    table = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    few = int((generated.frame["attr.sex"] == "a").sum())
    assert row(table, "kd", "sex", "a").note == f"too small: {few} generated images"
    gap = row(table, "kd", "sex", "gap")
    assert np.isnan(gap.estimate)
    assert gap.note.startswith("fewer than two groups are large enough")


def test_a_whole_set_that_is_too_small_still_gives_a_table():
    table = evaluate(make_images(20, 14), make_images(20, 15), encoder=ColourEncoder(), show=False).table
    assert table.estimate.isna().all()
    assert table.matched_n.isna().all()
    assert (table.note != "").all()


def test_matched_n_of_the_user_leaves_out_groups_that_cannot_reach_it():
    real, generated = (
        make_images(300, 16, odds=[0.2, 0.8]),
        make_images(300, 17, odds=[0.5, 0.5], per_patient=1),
    )
    table = evaluate(real, generated, encoder=ColourEncoder(), matched_n=55, **FAST).table
    assert (table.matched_n == 55).all()
    assert row(table, "fd", "sex", "a").note.startswith("too small for matched n")
    assert np.isfinite(row(table, "fd", "sex", "b").estimate)


def test_few_images_for_many_features_are_noted(table):
    assert "below" not in row(table, "fd", "*", "*").note
    real, generated = make_images(60, 18, per_patient=1), make_images(60, 19, per_patient=1)

    class Wide(ColourEncoder):
        dimension = 600

        def __call__(self, images):
            return np.tile(super().__call__(images)[0], 100), None

    wide = evaluate(real, generated, [], encoder=Wide(), **FAST | {"metrics": None}).table
    assert "n 30 is below the 600 features" in row(wide, "fd", "*", "*").note
    assert "is" not in set(wide.metric)  # an encoder without classes has no score
    assert {"fd", "fd_inf", "kd", "precision", "recall", "density", "coverage"} == set(wide.metric)


def test_holm_over_attributes():
    real, generated = make_images(240, 20), make_images(200, 21, shift=0.02, per_patient=1)
    for side, seed in ((real, 0), (generated, 1)):
        names = np.random.default_rng(seed).choice(["x", "y"], side.frame.patient.nunique())
        index = pd.factorize(side.frame.patient)[0]
        side.frame["attr.other"] = names[index].astype(object)
    table = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    for metric in ("fd", "kd"):
        gaps = [row(table, metric, name, "gap") for name in ("sex", "other")]
        raw = [float(gap.note.split("attributes, ")[1].split(" before")[0]) for gap in gaps]
        low, high = min(raw), max(raw)
        expected = {low: min(1, 2 * low), high: max(min(1, 2 * low), high)}
        for gap, value in zip(gaps, raw, strict=True):
            assert gap.p_value == pytest.approx(expected[value], rel=2e-2)


def test_unknown_groups_count_in_the_whole_set_alone():
    real, generated = make_images(200, 22), make_images(160, 23, per_patient=1)
    real.frame.loc[:9, "attr.sex"] = None
    table = evaluate(real, generated, encoder=ColourEncoder(), **FAST).table
    assert row(table, "fd", "*", "*").n_real == 200
    assert row(table, "fd", "sex", "gap").n_real == 190


def test_limit_draws_whole_patients_and_says_so():
    real, generated = make_images(200, 24), make_images(100, 25, per_patient=1)
    table = evaluate(real, generated, encoder=ColourEncoder(), limit=150, **FAST).table
    whole = row(table, "fd", "*", "*")
    assert whole.n_real == 150
    assert "150 of 200 real images, drawn by patient" in whole.note
    with pytest.raises(InputError, match="one patient has more than 1"):
        evaluate(real, generated, encoder=ColourEncoder(), limit=1, **FAST)


def test_a_reconstruction_of_the_same_patients_is_not_favoured_by_its_own_originals():
    real = make_images(200, 26, per_patient=1)
    copies = ImageSet(real.frame, real.pixels)
    own = evaluate(real, copies, [], encoder=ColourEncoder(), run="reconstruction", **FAST).table
    strangers = ImageSet(real.frame.drop(columns="patient"), real.pixels)
    naive = evaluate(real, strangers, [], encoder=ColourEncoder(), **FAST).table
    assert row(own, "kd", "*", "*").estimate == pytest.approx(0, abs=1e-9)
    assert row(naive, "kd", "*", "*").estimate < -1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matched_n": 1}, "matched_n: .*2, not 1"),
        ({"repeats": 0}, "repeats: .*1, not 0"),
        ({"replicates": 3}, "replicates: .*20, not 3"),
        ({"replikates": 30}, "replikates: unknown key .did you mean 'replicates'"),
    ],
)
def test_senseless_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        evaluate(make_images(20, 0), make_images(20, 1), encoder=ColourEncoder(), **{**FAST, **change})
