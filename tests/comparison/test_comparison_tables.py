"""A comparison: the same numbers as an evaluation, means and differences over seeds by hand, patients shared by all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from quality_images import ColourEncoder, make_images
from scipy import stats

from equigen.comparison.evaluation import ComparisonResult, Sample, evaluate_comparison
from equigen.comparison.tables import ONE_SEED, SEED_COLUMNS, SUMMARY_COLUMNS
from equigen.errors import InputError
from equigen.quality import ImageSet, evaluate
from equigen.quality.metrics import kernel
from equigen.seeds import numpy_generator

SHIFTS = {"none": 0.2, "fair": 0.05, "same": 0.2}
FAST = {"encoder": ColourEncoder(), "replicates": 40, "permutations": 30, "repeats": 2, "min_patients": 20,
        "show": False}  # fmt: skip
REAL = make_images(160, 0)


def made(mechanism: str, seed: int, scale: float = 1.0, count: int = 60) -> ImageSet:
    number = 100 + seed if mechanism in {"none", "same"} else 200 + seed
    return make_images(count, number, shift=scale * SHIFTS[mechanism], per_patient=1)


def sample(mechanism: str, seed: int, guidance=1.0, plan: str = "match", **rest) -> Sample:
    scale = {"common": 0.8, "calibrated": 0.3}.get(guidance, 1.0)
    return Sample("default", mechanism, seed, plan, guidance, made(mechanism, seed, scale, **rest))


@pytest.fixture(scope="module")
def comparison() -> ComparisonResult:
    samples = [sample(name, seed) for name in SHIFTS for seed in range(3)]
    samples += [sample("none", seed, how) for how in ("common", "calibrated") for seed in range(3)]
    samples += [sample("fair", seed, "calibrated") for seed in range(2)]
    samples += [sample("fair", 0, 2.5, plan="other")]
    return evaluate_comparison(REAL, samples, **FAST)


def pick(table: pd.DataFrame, **where) -> pd.Series:
    found = table.loc[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def row(
    comparison: ComparisonResult, mechanism: str, figure: str, guidance: str = "1", plan: str = "match"
) -> pd.Series:
    return pick(comparison.summary, mechanism=mechanism, figure=figure, guidance=guidance, plan=plan)


def values(comparison: ComparisonResult, mechanism: str, figure: str, guidance: str = "1") -> np.ndarray:
    own = comparison.seeds.query("mechanism == @mechanism and figure == @figure and guidance == @guidance")
    return own[own.plan == "match"].estimate.to_numpy()


def test_figures_are_the_excesses_of_an_evaluation(comparison):
    assert list(comparison.seeds.columns) == SEED_COLUMNS
    sets = {f"{name}-{seed}": made(name, seed) for name in ("none", "fair") for seed in range(2)}
    other = evaluate(
        REAL, sets, encoder=ColourEncoder(), metrics=["kd"], replicates=20, repeats=2, min_patients=20, show=False
    ).quality
    for name, seed in (("none", 0), ("none", 1), ("fair", 0), ("fair", 1)):
        excess = {group: pick(other, run=f"{name}-{seed}", group=group).excess for group in ("*", "a", "b")}
        own = {figure: values(comparison, name, figure)[seed] for figure in ("overall", "a", "b", "worst", "gap")}
        assert [own["overall"], own["a"], own["b"]] == pytest.approx(list(excess.values()), abs=1e-9)
        assert own["worst"] == pytest.approx(max(excess["a"], excess["b"]), abs=1e-9)
        assert own["gap"] == pytest.approx(abs(excess["a"] - excess["b"]), abs=1e-9)


def test_means_seed_intervals_and_paired_differences_by_hand(comparison):
    assert list(comparison.summary.columns) == SUMMARY_COLUMNS
    for figure in ("overall", "a", "worst", "gap"):
        mine, theirs = values(comparison, "fair", figure), values(comparison, "none", figure)
        found = row(comparison, "fair", figure)
        half = stats.t.ppf(0.975, 2) * mine.std(ddof=1) / np.sqrt(3)
        assert (found.seeds, found.estimate) == (3, pytest.approx(mine.mean()))
        assert [found.seed_low, found.seed_high] == pytest.approx([mine.mean() - half, mine.mean() + half])
        assert found.difference == pytest.approx((mine - theirs).mean())
        assert found.reference == "none at guidance 1"
        assert found.difference_low < found.difference < found.difference_high
        assert found.ci_high - found.ci_low >= found.patient_high - found.patient_low
    gap = row(comparison, "fair", "gap")
    assert gap.difference_high < 0
    assert gap.p_holm == pytest.approx(2 * gap.p_value)  # the smaller of two
    assert "worst group: a" in row(comparison, "none", "worst").note


def test_the_gap_of_means_by_hand(comparison):
    """Groups of the means over seeds; its difference is that of the two gaps, each between its own two groups."""
    for name, guidance in (("none", "1"), ("fair", "1"), ("none", "calibrated")):
        means = [values(comparison, name, group, guidance).mean() for group in ("a", "b")]
        found = row(comparison, name, "gap_of_means", guidance)
        assert (found.seeds, found.estimate) == (3, pytest.approx(np.ptp(means)))
        apart = values(comparison, name, "a", guidance) - values(comparison, name, "b", guidance)
        half = stats.t.ppf(0.975, 2) * apart.std(ddof=1) / np.sqrt(3)
        assert found.seed_high - found.estimate == pytest.approx(half)
        assert found.estimate <= row(comparison, name, "gap", guidance).estimate + 1e-12  # a mean of gaps is no smaller
        assert 0 < found.null_gap < row(comparison, name, "gap", guidance).null_gap
    fair, none = row(comparison, "fair", "gap_of_means"), row(comparison, "none", "gap_of_means")
    assert fair.difference == pytest.approx(fair.estimate - none.estimate)
    assert none.reference == ""
    assert np.isnan(none.difference)
    copy = row(comparison, "same", "gap_of_means")
    assert (copy.difference, copy.p_value) == (0, 1)
    partial = row(comparison, "fair", "gap_of_means", "calibrated")  # seed 2 is missing: both sides without it
    means = [
        [values(comparison, name, group, how)[:2].mean() for group in ("a", "b")]
        for name, how in (("fair", "calibrated"), ("none", "common"))
    ]
    assert partial.difference == pytest.approx(np.ptp(means[0]) - np.ptp(means[1]))


def test_seeds_that_err_in_turn_have_gaps_and_no_gap_of_means():
    """Group a is worse with one seed and group b with the other: no group is treated worse by the mechanism."""

    def leaning(group: str, seed: int) -> ImageSet:
        images = make_images(60, 400 + seed, per_patient=1)
        mine = (images.frame["attr.sex"] == group).to_numpy()
        return ImageSet(images.frame, np.where(mine[:, None, None, None], images.pixels // 2, images.pixels))

    sets = [Sample("default", "none", seed, "match", 1.0, leaning(group, seed)) for seed, group in enumerate("ab")]
    table = evaluate_comparison(REAL, sets, **FAST).summary
    gap, means = (pick(table, figure=figure) for figure in ("gap", "gap_of_means"))
    assert means.estimate < 0.5 * gap.estimate


def test_the_reference_and_its_copy(comparison):
    own, copy = row(comparison, "none", "gap"), row(comparison, "same", "gap")
    assert own.reference == ""
    assert np.isnan(own.difference)
    assert (copy.difference, copy.difference_low, copy.difference_high, copy.p_value) == (0, 0, 0, 1)
    assert copy.estimate == own.estimate


def test_a_calibrated_sample_is_held_against_the_common_guidance(comparison):
    own = row(comparison, "none", "gap", "calibrated")
    assert own.reference == "none at the common guidance"
    paired = values(comparison, "none", "gap", "calibrated") - values(comparison, "none", "gap", "common")
    assert own.difference == pytest.approx(paired.mean())
    fair = row(comparison, "fair", "overall", "calibrated")
    pairs = values(comparison, "fair", "overall", "calibrated") - values(comparison, "none", "overall", "common")[:2]
    assert fair.difference == pytest.approx(pairs.mean())
    assert "difference without seed 2, which one of the two lacks" in fair.note


def test_one_seed_and_no_reference_have_words_and_no_joint_interval(comparison):
    own = row(comparison, "fair", "overall", "2.5", "other")
    assert ONE_SEED in own.note
    assert "no difference: none at guidance 2.5 was not measured" in own.note
    assert own.patient_low < own.estimate < own.patient_high
    assert own[["seed_low", "ci_low", "ci_high", "difference", "p_value", "p_holm"]].isna().all()
    assert (own.seeds, own.reference) == (1, "")


def test_only_real_patients_are_resampled_and_all_samples_share_the_draws():
    """An interval by brute force: KD of weighted real rows without pairs of one patient; generated rows as they are."""
    images, network = made("none", 0), ColourEncoder()
    real, fake = (network(own.pixels)[0].astype(np.float64) for own in (REAL, images))
    owner = np.unique(REAL.frame.patient, return_inverse=True)[1]
    rng, size = numpy_generator(0, "quality/bootstrap/real"), owner.max() + 1
    kernels = [(x @ y.T / 6 + 1) ** 3 for x, y in ((real, real), (real, fake), (fake, fake))]
    apart = (owner[:, None] != owner).astype(float)
    own = (kernels[2].sum() - np.trace(kernels[2])) / (len(fake) * (len(fake) - 1))
    draws = []
    for _ in range(40):
        w = np.bincount(rng.integers(0, size, size), minlength=size)[owner].astype(float)
        among = w @ (kernels[0] * apart) @ w / (w @ apart @ w)
        draws.append(among + own - 2 * (w @ kernels[1].mean(axis=1)) / w.sum())
    found = pick(evaluate_comparison(REAL, [sample("none", 0)], **FAST).summary, figure="overall")
    half = stats.t.ppf(0.975, size - 1) * np.std(draws, ddof=1)
    assert found.patient_high - found.estimate == pytest.approx(half, rel=1e-3)


def test_the_chance_gap_is_what_a_fair_generator_shows():
    real = make_images(160, 1)
    fair = [make_images(60, 300 + seed, per_patient=1) for seed in range(10)]
    sets = [Sample("default", "none", seed, "match", 1.0, images) for seed, images in enumerate(fair)]
    found = pick(evaluate_comparison(real, sets, **FAST).summary, figure="gap")
    assert found.null_gap == pytest.approx(found.estimate, rel=0.5)
    assert "above 0 by chance alone" in found.note
    assert np.isnan(pick(evaluate_comparison(real, sets[:1], **FAST).summary, figure="worst").null_gap)


def test_samples_of_a_plan_share_one_n_and_plans_do_not():
    few = [sample("none", 0), sample("fair", 0, count=30), sample("none", 0, plan="other")]
    table = evaluate_comparison(REAL, few, **{**FAST, "min_patients": 8}).summary
    assert table[table.plan == "match"].n.nunique() == 1
    assert table[table.plan == "match"].n.iloc[0] < table[table.plan == "other"].n.iloc[0]


def test_small_groups_have_words_and_leave_worst_and_gap_without_a_number():
    levels = {"sex": ["a", "b", "nobody"]}
    three = evaluate_comparison(ImageSet(REAL.frame, REAL.pixels, levels), [sample("none", 0)], **FAST)
    empty = pick(three.summary, figure="nobody")
    assert np.isnan(empty.estimate)
    assert empty.note == "too small: 0 patients"
    assert "without nobody (too small: 0 patients)" in pick(three.summary, figure="gap").note
    lone = evaluate_comparison(make_images(160, 0, odds=[0.95, 0.05]), [sample("none", 0)], **FAST)
    gap = pick(lone.summary, figure="gap")
    assert np.isnan(gap.estimate)
    assert gap.seeds == 0
    assert gap.note.startswith("fewer than two groups have a number in every sample")


def test_a_metric_of_which_more_is_better_takes_the_smallest_for_the_worst():
    table = evaluate_comparison(REAL, [sample("none", 0)], **{**FAST, "metrics": ["kd", "precision"]}).seeds
    own = table[table.metric == "precision"].set_index("figure").estimate
    assert own["worst"] == min(own["a"], own["b"]) < max(own["a"], own["b"])
    assert own["gap"] == pytest.approx(abs(own["a"] - own["b"]))
    assert table[table.metric == "kd"].set_index("figure").estimate["worst"] > 0


def test_the_real_kernel_is_computed_once_and_features_are_kept(tmp_path, monkeypatch):
    network, calls, plain = ColourEncoder(), [], kernel._kernel_mean
    monkeypatch.setattr(kernel, "_kernel_mean", lambda a, b, shift: (calls.append(a is b), plain(a, b, shift))[1])
    samples = [sample(name, seed) for name in ("none", "fair") for seed in range(2)]
    options = {**FAST, "encoder": network, "cache_dir": tmp_path}
    first = evaluate_comparison(REAL, samples, **options)
    cells = 3  # all, a and b; each: real with real once, then two more a sample
    assert len(calls) == cells * (1 + 2 * len(samples))
    assert network.seen == len(REAL) + sum(len(own.source) for own in samples)
    again = evaluate_comparison(REAL, samples, **options)
    assert network.seen == len(REAL) + sum(len(own.source) for own in samples)
    pd.testing.assert_frame_equal(first.summary, again.summary, check_exact=True)


def test_samples_side_by_side_and_features_of_their_own_change_nothing(tmp_path):
    samples = [sample(name, seed) for name in ("none", "fair") for seed in range(2)]
    alone = evaluate_comparison(REAL, samples, **FAST)
    own = [replace(item, features=tmp_path / str(place)) for place, item in enumerate(samples)]
    together = evaluate_comparison(REAL, own, workers=3, **FAST)
    pd.testing.assert_frame_equal(together.summary, alone.summary)
    network = ColourEncoder()
    evaluate_comparison(REAL, own, **{**FAST, "encoder": network})
    assert network.seen == len(REAL)  # the samples' features are those that the first measurement left


def test_what_screening_left_out_of_each_sample_is_noted():
    samples = [
        replace(own, source=replace(own.source, remark=remark))
        for own, remark in ((sample("none", 0), ""), (sample("fair", 0), "7 of 67 images were refused"))
    ]
    notes = evaluate_comparison(REAL, samples, **FAST).summary["note"]
    assert notes.str.contains(f"{samples[1].name}: 7 of 67 images were refused", regex=False).any()


def test_tables_survive_a_file(comparison, tmp_path):
    comparison.write(tmp_path)
    again = ComparisonResult.read(tmp_path)
    pd.testing.assert_frame_equal(again.summary, comparison.summary, check_exact=True)
    pd.testing.assert_frame_equal(again.seeds, comparison.seeds, check_exact=True)


def test_bad_input_is_named_before_any_work():
    good = sample("none", 0)
    for samples, words in (
        ([], "no sample"),
        ([good, good], "2 samples are called 'default, none, seed 0, match, guidance 1'"),
        ([sample("none", 0, "best")], "guidance is 'best'"),
        ([sample("none", 0, float("nan"))], "guidance is nan"),
        ([sample("none", 0, 0.0)], "guidance is 0.0"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate_comparison(REAL, samples, **FAST)
    with pytest.raises(InputError, match="no attribute 'age'"):
        evaluate_comparison(REAL, [good], ["age"], **FAST)
    with pytest.raises(InputError, match="needs training images"):
        evaluate_comparison(REAL, [good], **{**FAST, "metrics": ["mifid"]})
    with pytest.raises(InputError, match="replicates is 3"):
        evaluate_comparison(REAL, [good], **{**FAST, "permutations": 3})
