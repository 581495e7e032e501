from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score

from equigen.errors import InputError
from equigen.progress import progress_bar
from equigen.quality.cells import GroupedImages, ResamplingSettings, cross_groups, make_cells
from equigen.quality.judge import probe
from equigen.quality.judge.judge import AnnotatedFeatures, fit_judges, measure_semantic
from equigen.quality.judge.probe import fit_probe, fit_temperature, log_loss, patient_folds, reliability
from equigen.quality.judge.questions import JudgePredictions, SetPredictions, Target, select_targets
from equigen.quality.judge.semantic_metrics import macro_auc, requested_probability
from equigen.quality.metric_inputs import MeasurementPlan
from equigen.quality.resamples import make_draws
from equigen.quality.rows import quality_table

SHIFT = 1.5  # between the classes, in standard deviations of the one feature that tells them apart
AUC = norm.cdf(SHIFT / np.sqrt(2))  # of two normal distributions that far apart
LEVELS = {"sex": ["f", "m"], "age": ["old", "young"]}


def made(n: int, seed: int, images: int = 2) -> AnnotatedFeatures:
    """Gaussian features: the first shows dx, the second sex, the third age; the others nothing."""
    rng = np.random.default_rng(seed)
    ill, female, old = (rng.random((3, n)) < 0.5).astype(int)
    features = rng.normal(size=(n, 6))
    for column, shown in enumerate((ill, female, old)):
        features[:, column] += SHIFT * shown
    frame = pd.DataFrame(
        {
            "label.dx": np.where(ill, "ill", "healthy"),
            "attr.sex": np.where(female, "f", "m"),
            "attr.age": np.where(old, "old", "young"),
        },
        dtype=object,
    )
    return AnnotatedFeatures(features.astype(np.float32), frame, np.array([f"{seed} {i // images}" for i in range(n)]))


def planned(
    real: AnnotatedFeatures, generated: AnnotatedFeatures, levels=None, replicates: int = 100, crossed: bool = False
) -> MeasurementPlan:
    settings = ResamplingSettings(repeats=1, replicates=replicates, min_patients=30)
    levels = LEVELS if levels is None else levels
    sides = [
        GroupedImages(
            part.patients,
            {
                name: pd.Categorical(part.frame[f"attr.{name}"], groups).codes.astype(np.int64)
                for name, groups in levels.items()
            },
        )
        for part in (real, generated)
    ]
    if crossed:
        sides, levels = cross_groups(sides, levels)
    cells = make_cells(*sides, levels, settings)
    with progress_bar("", 1, show=False) as bar:
        return MeasurementPlan(cells, make_draws(*sides, cells, settings), 30, settings, bar)


def asked(part: AnnotatedFeatures, **columns) -> AnnotatedFeatures:
    return AnnotatedFeatures(part.features, part.frame.assign(**columns), part.patients)


def by_metric(measured):
    return {item.metric: item for item in measured}


@pytest.fixture(scope="module")
def real():
    return made(1200, 0)


@pytest.fixture(scope="module")
def judges(real):
    return fit_judges(real)


@pytest.fixture(scope="module")
def good(judges, real):
    """A faithful generator: its images show what was asked for as real ones do."""
    generated = made(1600, 1, images=1)
    judged, plan = judges.judge(generated), planned(real, generated)
    return judged, plan, by_metric(measure_semantic(judged, plan))


# The probe


def test_folds_keep_patients_whole_and_spread_a_rare_class():
    rng = np.random.default_rng(0)
    patients = rng.permutation(np.repeat(np.arange(100), 3))
    truth = (patients < 10).astype(np.int64)
    folds = patient_folds(truth, patients, 5, rng)
    assert all(len(np.unique(folds[patients == patient])) == 1 for patient in range(100))
    held = [len(np.unique(patients[(folds == fold) & (truth == 1)])) for fold in range(5)]
    assert held == [2] * 5
    assert [len(np.unique(patients[folds == fold])) for fold in range(5)] == [20] * 5


def test_the_probe_finds_the_logit_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) % 2
    features = rng.normal(5, 1, (4000, 2)) * [1, 100]
    features[:, 0] += SHIFT * truth
    judge = fit_probe(features, truth, np.arange(4000), 2, rng)
    at = np.array([[5.0, 500.0], [5 + SHIFT, 500.0], [5 + SHIFT / 2, 500.0]])
    expected = 1 / (1 + np.exp(-SHIFT * (at[:, 0] - 5 - SHIFT / 2)))  # Bayes' rule for equal variances
    np.testing.assert_allclose(judge.probabilities(at)[:, 1], expected, atol=0.03)
    assert judge.converged
    with pytest.raises(InputError, match="not finite, the first is 1"):
        judge.logits(np.array([[5.0, 500.0], [np.nan, 0.0]]))
    with pytest.raises(InputError, match=r"shape \(3, 1\)"):
        judge.logits(at[:, :1])


def test_a_useless_feature_is_shrunk_away_and_a_constant_one_does_no_harm():
    rng = np.random.default_rng(3)
    features = np.column_stack([rng.normal(size=(90, 40)), np.full(90, 7.0)])
    judge = fit_probe(features, np.arange(90) % 3, np.arange(90), 3, rng)
    fresh = np.column_stack([rng.normal(size=(500, 40)), np.full(500, 7.0)])
    assert judge.strength >= 1
    np.testing.assert_allclose(judge.probabilities(fresh), 1 / 3, atol=0.15)


def test_temperature_mends_overconfident_logits():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (5000, 3))
    truth = np.array([rng.choice(3, p=p) for p in softmax(true, axis=1)])
    found = fit_temperature(4 * true, truth)
    assert found == pytest.approx(4, rel=0.1)
    before, after = (reliability(softmax(4 * true / t, axis=1), truth) for t in (1.0, found))
    assert after[0] < before[0] - 0.02
    assert after[1] < 0.02 < 0.1 < before[1]
    assert log_loss(4 * true / found, truth) < log_loss(4 * true, truth)


def test_calibration_mends_the_brier_score_of_a_judge_on_patients_it_never_saw(monkeypatch):
    monkeypatch.setattr(probe, "STRENGTHS", (1e-3,))  # too weak: overconfident
    rng = np.random.default_rng(0)
    part = made(400, 2)
    part = AnnotatedFeatures(np.column_stack([part.features, rng.normal(size=(400, 60))]), part.frame, part.patients)
    fit = fit_judges(part, columns=["label.dx"]).judges[0]
    assert fit.brier < fit.uncalibrated[0] - 0.01
    assert fit.ece < fit.uncalibrated[1]
    assert f"Brier {fit.brier:.3g}, ECE {fit.ece:.3g} (uncalibrated {fit.uncalibrated[0]:.3g}" in fit.calibration_note


def test_brier_is_that_of_sklearn_for_two_classes():
    rng = np.random.default_rng(0)
    p, truth = rng.random(300), rng.integers(0, 2, 300)
    assert reliability(np.column_stack([1 - p, p]), truth)[0] == pytest.approx(brier_score_loss(truth, p))


# Leakage


def signatures(patients: int, seed: int) -> AnnotatedFeatures:
    """Features that tell the patient and nothing else; a patient's four images share diagnosis and features."""
    rng = np.random.default_rng(seed)
    own, ill = rng.normal(size=(patients, 50)), rng.permutation(np.arange(patients) % 2)
    rows = np.repeat(np.arange(patients), 4)
    frame = pd.DataFrame({"label.dx": np.where(ill[rows], "ill", "healthy")}, dtype=object)
    return AnnotatedFeatures((own[rows] + rng.normal(0, 0.01, (len(rows), 50))).astype(np.float32), frame, rows)


def test_no_image_is_judged_by_a_judge_that_saw_its_patient():
    part = signatures(80, 0)
    fit = fit_judges(part).judges[0]
    assert roc_auc_score(fit.truth, fit.real[:, 1]) == pytest.approx(0.5, abs=0.2)
    seen = fit_probe(part.features, fit.truth, np.arange(320), 2, np.random.default_rng(0))  # images, not patients
    assert roc_auc_score(fit.truth, seen.probabilities(part.features)[:, 1]) > 0.95


def test_patients_of_the_real_images_are_taken_out_of_the_training_images():
    part, other = signatures(80, 0), signatures(80, 1)
    train = AnnotatedFeatures(
        np.concatenate([part.features, other.features]),
        pd.concat([part.frame, other.frame]),
        np.concatenate([part.patients, other.patients + 1000]),
    )
    judges = fit_judges(part, train)
    assert judges.judges[0].probes[0].images == 320
    assert "320 of patients among the real images left out" in judges.description
    assert roc_auc_score(judges.judges[0].truth, judges.judges[0].real[:, 1]) == pytest.approx(0.5, abs=0.2)


def test_a_changed_patient_does_not_change_its_own_judge(real):
    """The ceiling's judge uses nothing of the image's patient, not even for its strength."""
    base = fit_judges(real, columns=["label.dx"]).judges[0]
    features = real.features.copy()
    features[:2] += 40  # both images of the first patient
    moved = fit_judges(AnnotatedFeatures(features, real.frame, real.patients), columns=["label.dx"]).judges[0]
    blind = [
        probe
        for probe, other in zip(base.probes, moved.probes, strict=True)
        if np.array_equal(probe.weights, other.weights) and probe.strength == other.strength
    ]
    assert len(blind) == 1  # the fold of that patient alone
    np.testing.assert_allclose(base.real[:2], blind[0].probabilities(real.features[:2]))


def test_a_reconstruction_is_judged_by_the_judge_that_did_not_see_its_patient(real, judges):
    fit = judges.judges[0]
    np.testing.assert_allclose(fit.probabilities(real.features, real.patients), fit.real)
    strangers = np.array([f"other {row}" for row in range(1200)])
    found = fit.probabilities(real.features, strangers)
    each = np.stack([probe.probabilities(real.features) for probe in fit.probes])
    lots = np.abs(each - found).sum(axis=2).argmin(axis=0)
    np.testing.assert_allclose(found, each[lots, np.arange(1200)])  # one probe each
    assert np.bincount(lots).min() > 180
    order = np.random.default_rng(0).permutation(1200)
    np.testing.assert_allclose(fit.probabilities(real.features[order], strangers), found[order])


# What is measured


def test_a_faithful_generator_reaches_the_analytic_auc_and_the_ceiling(good):
    estimate = good[2]["semantic_auc"].estimates["*", "*"]
    assert estimate.value == pytest.approx(AUC, abs=0.03)
    assert estimate.floor == pytest.approx(AUC, abs=0.03)
    error = np.sqrt((AUC - AUC**2) / 800)  # of an AUC with 800 + 800 images, at most (Hanley and McNeil)
    assert 0.3 * error < estimate.replicates.std() < error
    assert good[2]["semantic_auc"].kind == "share"
    assert good[2]["semantic_attribute_auc"].estimates["*", "*"].value == pytest.approx(AUC, abs=0.03)


def test_a_judge_trained_on_training_images_reaches_it_too(real):
    generated = made(1000, 4, images=1)
    judged = fit_judges(real, made(1500, 5)).judge(generated)
    estimate = by_metric(measure_semantic(judged, planned(real, generated)))["semantic_auc"].estimates["*", "*"]
    assert [estimate.value, estimate.floor] == pytest.approx([AUC, AUC], abs=0.04)
    assert "1500 real training images" in judged.notes["label"]


def test_requests_that_are_ignored_give_one_half(judges, real):
    generated = made(1200, 6, images=1)
    shuffled = generated.frame["label.dx"].sample(frac=1, random_state=0).to_numpy()
    generated = asked(generated, **{"label.dx": shuffled})
    plan = planned(real, generated)
    table = quality_table(measure_semantic(judges.judge(generated), plan), plan.cells, "g", "e", None)
    row = table[(table.metric == "semantic_auc") & (table.group == "*")].iloc[0]
    assert row.ci_low < 0.5 < row.ci_high
    assert row.floor == pytest.approx(AUC, abs=0.03)


def test_a_group_whose_requests_are_ignored_shows(judges, real):
    generated = made(1600, 7, images=1)
    female = (generated.frame["attr.sex"] == "f").to_numpy()
    column = generated.frame["label.dx"].to_numpy().copy()
    column[female] = np.random.default_rng(0).permutation(column[female])
    generated = asked(generated, **{"label.dx": column})
    plan = planned(real, generated)
    measured = measure_semantic(judges.judge(generated), plan)
    table = quality_table(measured, plan.cells, "g", "e", None)
    auc = table[table.metric == "semantic_auc"].set_index(["attribute", "group"])
    assert auc.loc[("sex", "f"), "estimate"] == pytest.approx(0.5, abs=0.06)
    assert auc.loc[("sex", "m"), "estimate"] == pytest.approx(AUC, abs=0.04)
    assert auc.loc[("sex", "gap"), "estimate"] > auc.loc[("sex", "gap"), "null_high"]
    assert auc.loc[("sex", "gap"), "p_value"] == pytest.approx(2 / 101)  # Holm over two attributes
    assert auc.loc[("age", "gap"), "p_value"] > 0.05
    whole, f, m = (auc.loc[key, "estimate"] for key in (("*", "*"), ("sex", "f"), ("sex", "m")))
    assert auc.loc[("sex", "es"), "estimate"] == pytest.approx(whole / (1 + abs(f - whole) + abs(m - whole)))


def test_figures_of_a_cell_are_those_of_sklearn_by_hand(good):
    judged, plan, items = good
    answer = next(a for a in judged.judges if a.target.column == "label.dx")
    cell = next(c for c in plan.cells if c.group == "old")
    scores = answer.generated[cell.generated, answer.target.levels.index("ill")]
    truth = answer.requested[cell.generated] == answer.target.levels.index("ill")
    estimate = items["semantic_auc"].estimates["age", "old"]
    assert estimate.value == pytest.approx(roc_auc_score(truth, scores))
    weights = plan.weights(cell)[1]
    expected = [roc_auc_score(truth, scores, sample_weight=row) for row in weights[:5]]
    np.testing.assert_allclose(estimate.replicates[:5], expected)
    pool = plan.draws.null["age"]
    scores, truth = answer.generated[pool.generated, 1], answer.requested[pool.generated] == 1
    chance = [roc_auc_score(truth, scores, sample_weight=groups == 0) for groups in pool.generated_groups[:3]]
    np.testing.assert_allclose(items["semantic_auc"].null["age"][:3, 0], chance)


def test_in_a_group_the_attribute_auc_is_of_the_others_and_the_probability_of_its_own(good):
    judged, plan, items = good
    answers = {a.target.column: a for a in judged.judges}
    cell = next(c for c in plan.cells if c.group == "f")
    ones = np.ones((1, len(cell.generated)))
    auc, own = items["semantic_attribute_auc"], items["semantic_attribute_probability"]
    assert auc.estimates["sex", "f"].value == macro_auc([answers["attr.age"]], "generated", cell.generated, ones)[0]
    by_hand = answers["attr.sex"].generated[cell.generated, answers["attr.sex"].target.levels.index("f")].mean()
    assert own.estimates["sex", "f"].value == pytest.approx(by_hand)
    whole = plan.cells[0].generated
    expected = macro_auc([answers["attr.age"]], "generated", whole, np.ones((1, len(whole))))[0]
    assert auc.estimates["*", "sex"].value == expected  # like with like for the equity-scaled value
    assert auc.estimates["*", "*"].value != expected
    assert auc.null["sex"].shape == (100, 2)


def test_an_attribute_that_is_ignored_shows_in_its_own_group(judges, real):
    generated = made(1600, 8, images=1)
    frame = generated.frame
    frame.loc[frame["attr.age"] == "young", "attr.sex"] = (
        frame.loc[frame["attr.age"] == "young", "attr.sex"].sample(frac=1, random_state=0).to_numpy()
    )  # sex is ignored where young was asked for
    items = by_metric(measure_semantic(judges.judge(generated), planned(real, generated)))
    found = items["semantic_attribute_auc"].estimates
    assert found["age", "young"].value == pytest.approx(0.5, abs=0.06)
    assert found["age", "old"].value == pytest.approx(AUC, abs=0.04)
    assert found["sex", "f"].value == pytest.approx(AUC, abs=0.04)


def test_an_intersection_has_no_attribute_auc_of_its_own_attributes(judges, real, good):
    generated = made(1600, 1, images=1)
    items = by_metric(measure_semantic(judges.judge(generated), planned(real, generated, crossed=True)))
    assert list(items["semantic_attribute_auc"].estimates) == [("*", "*")]
    assert ("sex & age", "f & old") in items["semantic_attribute_probability"].estimates
    assert ("sex & age", "f & old") in items["semantic_auc"].estimates


def test_unknown_requests_do_not_count(judges, real):
    generated = made(800, 9, images=1)
    gone = np.arange(800) < 300
    hidden = asked(generated, **{"label.dx": generated.frame["label.dx"].where(~gone, None)})
    answers = judges.judge(hidden).judges[:1]
    value = macro_auc(answers, "generated", np.arange(800), np.ones((1, 800)))
    rest = macro_auc(judges.judge(generated).judges[:1], "generated", np.arange(300, 800), np.ones((1, 500)))
    assert value[0] == rest[0]
    level = requested_probability(answers, "generated", np.arange(300), np.ones((1, 300)))
    assert np.isnan(level).all()


def test_real_images_of_unknown_level_teach_nothing_and_make_no_ceiling(real):
    unknown = np.arange(1200) < 600
    part = asked(real, **{"label.dx": real.frame["label.dx"].where(~unknown, None)})
    fit = fit_judges(part, columns=["label.dx"]).judges[0]
    assert (fit.truth[:600] == -1).all()
    assert sum(probe.images for probe in fit.probes) == 4 * 600
    assert np.isfinite(fit.real).all()  # judged all the same, for the agreement with an oracle


def test_a_group_that_was_asked_for_one_class_has_no_number_and_the_note_says_so(judges, real):
    generated = made(800, 10, images=1)
    column = np.where(generated.frame["attr.age"] == "old", "ill", generated.frame["label.dx"])
    generated = asked(generated, **{"label.dx": column})
    item = by_metric(measure_semantic(judges.judge(generated), planned(real, generated)))["semantic_auc"]
    assert np.isnan(item.estimates["age", "old"].value)
    assert np.isfinite(item.estimates["age", "young"].value)
    assert "left out where fewer than 5 images have a class, or another: age old generated: healthy, ill" in item.note


def test_classes_that_real_images_do_not_teach_are_left_out_with_a_note(real):
    rare = np.where(np.arange(1200) < 16, "rare", real.frame["label.dx"])
    part = asked(real, **{"label.dx": rare, "label.same": "always"})
    judges = fit_judges(part, columns=["label.dx", "label.same"])
    assert [fit.target.levels for fit in judges.judges] == [["healthy", "ill"]]
    generated = asked(made(400, 11, images=1), **{"label.dx": np.repeat(["rare", "ill", "healthy", "ill"], 100)})
    judged = judges.judge(generated)
    assert (judged.judges[0].requested[:100] == -1).all()
    assert "label.dx: rare left out, fewer than 30 patients show it" in judged.notes["label"]
    assert "no judge of label.same: fewer than two levels with 30 patients" in judged.notes["label"]
    assert "the generated images have no such column" in judged.notes["label"]


def test_without_a_judge_there_is_a_note_and_no_number(real):
    part = asked(real, **{"label.dx": "always"})
    generated = made(400, 12, images=1)
    items = by_metric(
        measure_semantic(fit_judges(part, columns=["label.dx"]).judge(generated), planned(real, generated))
    )
    assert list(items) == ["semantic_auc"]
    assert items["semantic_auc"].estimates == {}
    assert "no judge of label.dx" in items["semantic_auc"].note


def test_findings_of_a_multilabel_column_are_judged_one_by_one():
    rng = np.random.default_rng(0)

    def part(n, seed):
        base = made(n, seed, images=1)
        edema, mass = rng.random((2, n)) < 0.4
        features = base.features.copy()
        features[:, 4] += SHIFT * edema
        features[:, 5] += 3 * mass
        named = zip(np.where(edema, "edema", ""), np.where(mass, "mass", ""), strict=True)
        cells = ["|".join(filter(None, pair)) for pair in named]
        frame = pd.DataFrame({"label.findings": cells, "attr.sex": base.frame["attr.sex"]}, dtype=object)
        return AnnotatedFeatures(features, frame, base.patients)

    real, generated = part(600, 20), part(1200, 21)
    generated.frame.loc[:9, "label.findings"] = None
    judges = fit_judges(real)
    judged = judges.judge(generated)
    assert [a.target.name for a in judged.judges] == ["label.findings edema", "label.findings mass", "attr.sex"]
    assert (judged.judges[0].requested[:10] == -1).all()
    estimate = by_metric(measure_semantic(judged, planned(real, generated, {"sex": ["f", "m"]})))["semantic_auc"]
    expected = (AUC + norm.cdf(3 / np.sqrt(2))) / 2
    assert estimate.estimates["*", "*"].value == pytest.approx(expected, abs=0.03)
    as_classes = select_targets(real, ["label.findings"], {"findings": "multiclass"}, {}, 30)[0]
    assert [question.levels for question in as_classes] == [["edema", "edema|mass", "mass"]]


def test_three_classes_are_averaged_one_against_the_rest():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 90)
    levels = rng.integers(0, 3, 90)
    levels[levels == 2] = np.where(np.arange((levels == 2).sum()) < 4, 2, 0)  # only four of the third
    question = Target("label.dx", ["a", "b", "c"])
    answer = JudgePredictions(question, probabilities, probabilities, levels, levels)
    expected = [roc_auc_score(levels == code, probabilities[:, code]) for code in (0, 1)]
    rows, weights = np.arange(90), np.ones((1, 90))
    assert macro_auc([answer], "generated", rows, weights)[0] == pytest.approx(np.mean(expected))
    two = macro_auc([answer], "generated", rows, 2 * weights)[0]  # twice four are enough
    assert two == pytest.approx(np.mean([*expected, roc_auc_score(levels == 2, probabilities[:, 2])]))


def test_agreement_of_judge_and_oracle_is_counted_by_hand(judges, real):
    generated = made(600, 13, images=1)
    reading = generated.frame["label.dx"].copy()
    reading[:50] = None
    generated = asked(generated, **{"oracle.dx": reading, "oracle.sex": "f"})
    seen = replace(judges, real=real.frame.assign(**{"oracle.dx": real.frame["label.dx"]}))
    judged = seen.judge(generated)
    plan = planned(real, generated)
    item = by_metric(measure_semantic(judged, plan))["judge_agreement"]
    answer = judged.judges[0]
    most = np.array(answer.target.levels)[answer.generated.argmax(1)]
    assert item.estimates["*", "*"].value == pytest.approx((most[50:] == reading[50:]).mean())
    assert item.estimates["*", "*"].floor == pytest.approx((answer.real.argmax(1) == answer.truth).mean())
    assert "label.dx; " in item.note
    assert "50 generated images in which the oracle sees nothing" in item.note
    assert "judge_agreement" not in by_metric(measure_semantic(SetPredictions(judged.judges, judged.notes), plan))


def test_sides_that_do_not_fit_are_refused(real, judges):
    with pytest.raises(InputError, match="1200 features, 1199 rows"):
        fit_judges(AnnotatedFeatures(real.features, real.frame.iloc[1:], real.patients))
    with pytest.raises(InputError, match=r"give \[N, 6\]"):
        judges.judge(AnnotatedFeatures(real.features[:, :5], real.frame, real.patients))
    broken = real.features.copy()
    broken[3, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fit_judges(AnnotatedFeatures(broken, real.frame, real.patients))
