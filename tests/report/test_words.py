"""The sentences say what the tables say, and no more."""

import pandas as pd
import pytest
from report_rows import fairness_row, quality_row

from equigen.report.findings import gap_text, mechanism_and_seed, primary_tasks, verdict
from equigen.report.frames import fairness_frame, quality_frame
from equigen.report.metrics import lookup_metric
from equigen.report.study.diagnosis import fairness_sentences
from equigen.report.study.quality import quality_sentences
from equigen.report.study.semantic import semantic_sentences

NAN = float("nan")


def said(sentences):
    return "\n".join(" | ".join([s.text, *s.parts]) for s in sentences)


def quality_said(*rows):
    frame = quality_frame(pd.DataFrame(rows))
    return said(quality_sentences(frame) + semantic_sentences(frame))


def fairness_said(*rows):
    return said(fairness_sentences(fairness_frame(pd.DataFrame(rows))))


def gap_row(estimate, null_high, p_value):
    return {
        "estimate": estimate,
        "null_low": 0.0,
        "null_high": null_high,
        "p_value": p_value,
        "note": "too few",
    }


def test_gap_inside_the_band_is_not_distinguishable_from_chance():
    text = gap_text(gap_row(0.12, 0.15, 0.21), lookup_metric("auc"))
    assert text == "gap 0.120, chance alone gives up to 0.150, p = 0.21: not distinguishable from chance"


def test_gap_outside_the_band_is_larger_than_chance():
    text = gap_text(gap_row(0.2, 0.15, 0.004), lookup_metric("auc"))
    assert text == "gap 0.200, chance alone gives up to 0.150, p = 0.004: larger than chance explains"


@pytest.mark.parametrize(
    ("estimate", "null_high", "p_value", "beyond"),
    [
        (0.2, 0.15, 0.2, False),  # band and p disagree: not claimed
        (0.12, 0.15, 0.01, False),
        (0.2, NAN, 0.01, True),
        (0.2, 0.15, NAN, True),
        (0.2, NAN, NAN, None),
        (NAN, 0.15, 0.01, None),
    ],
)
def test_verdict_needs_band_and_p_to_agree(estimate, null_high, p_value, beyond):
    assert verdict(gap_row(estimate, null_high, p_value), lookup_metric("auc")).exceeds_chance is beyond


def test_missing_gap_is_said_with_its_reason():
    assert gap_text(gap_row(NAN, NAN, NAN), lookup_metric("kd")) == "gap not evaluated (too few)"


def test_mechanism_against_none_names_who_gains_loses_and_is_unclear():
    text = quality_said(
        quality_row("none", "sex", "female", 0.300), quality_row("perturbation", "sex", "female", 0.200),
        quality_row("none", "sex", "male", 0.200), quality_row("perturbation", "sex", "male", 0.300),
        quality_row("none", "age", "young", 0.200), quality_row("perturbation", "age", "young", 0.210),
    )  # fmt: skip
    assert "closer to the real images: sex female 299 (279 to 319) → 199 (179 to 219) |" in text
    assert "further from the real images: sex male 199 (179 to 219) → 299 (279 to 319) |" in text
    assert "no difference beyond chance established: age young" in text


def test_one_seed_is_no_evidence_and_three_seeds_are_counted():
    one = quality_said(quality_row("none", "*", "*", 0.3), quality_row("perturbation", "*", "*", 0.1))
    assert "One training seed: not evidence about the mechanism" in one
    two = quality_said(*(quality_row(f"{m}-s{k}", "*", "*", 0.3) for m in ("none", "fair") for k in range(2)))
    assert "2 training seeds: not evidence about the mechanism" in two
    three = quality_said(
        *(quality_row(f"none-s{k}", "*", "*", 0.3 + k / 100) for k in range(3)),
        *(quality_row(f"fair-s{k}", "*", "*", 0.1 + k / 100) for k in range(3)),
    )
    assert "not evidence" not in three
    assert "in about 10% of comparisons" in three  # 2 of the 20 ways to part six runs into three and three
    assert "the whole set 309 (279 to 339) → 109 (79.0 to 139)" in three


def test_overlapping_seeds_establish_nothing():
    rows = [quality_row(f"none-s{k}", "*", "*", 0.3 + k / 10) for k in range(3)]
    rows += [quality_row(f"fair-s{k}", "*", "*", 0.2 + k / 10) for k in range(3)]
    text = quality_said(*rows)
    assert "no difference beyond chance established: the whole set" in text
    assert "closer to the real images: " not in text


def test_group_without_interval_is_not_compared():
    rows = [quality_row("none", "sex", "female", 0.3), quality_row("fair", "sex", "female", 0.1, ci_low=NAN)]
    assert "not comparable, a value or its interval is missing: sex female" in quality_said(*rows)


def test_small_cells_are_named_and_get_no_number():
    small = {
        "estimate": NAN,
        "ci_low": NAN,
        "ci_high": NAN,
        "floor": NAN,
        "excess": NAN,
        "note": "too small: 3",
    }
    rows = quality_row("none", "*", "*", 0.3), quality_row("none", "sex", "other", 0, more=small)
    text = quality_said(*rows)
    assert "Not evaluated, too few images or patients: sex other." in text
    assert "nan" not in text.lower()


def test_worst_group_and_reconstruction():
    text = quality_said(
        quality_row("reconstruction", "*", "*", 0.041), quality_row("reconstruction", "sex", "male", 0.045),
        quality_row("reconstruction", "sex", "female", 0.032), quality_row("none", "sex", "male", 0.3),
        quality_row("none", "sex", "female", 0.2),
    )  # fmt: skip
    assert "by sex: worst group male, 299 (279 to 319); gap not evaluated" in text
    assert "(reconstruction) costs 40.0 (20.0 to 60.0) over the whole set, 31.0 to 44.0 between groups" in text
    assert "No run is called" not in text


def test_gap_is_compared_as_it_is_and_not_as_excess():
    rows = [
        quality_row("none", "sex", "gap", 0.300, excess=0.1),
        quality_row("fair", "sex", "gap", 0.200, excess=0.2),
    ]
    assert "gap by sex 300 (280 to 320) → 200 (180 to 220): narrower" in quality_said(*rows)


def test_change_between_two_gaps_that_chance_explains_is_not_claimed():
    band = {"null_low": 0.0, "null_high": 0.4, "p_value": 0.3}
    rows = [quality_row("none", "sex", "gap", 0.1, **band), quality_row("fair", "sex", "gap", 0.3, **band)]
    assert "gap by sex 100 (80.0 to 120) → 300 (280 to 320): none of them distinguish" in quality_said(*rows)


def test_oracle_is_reported_whatever_encoder_the_distances_used():
    oracle = {"metric": "oracle_accuracy", "encoder": "oracle"}
    text = quality_said(
        quality_row("none", "race", "asian", 0.7, 0.1, more=oracle),
        quality_row("none", "race", "white", 0.9, 0.1, more=oracle),
        quality_row("none", "*", "*", 0.8, 0.1, more=oracle),
        quality_row("none", "*", "*", 0.3),
    )
    assert "none 0.800 (0.700 to 0.900), lowest for race asian (0.700)" in text
    assert "by the encoder efficientnet-lite0" in text


def test_best_run_is_named_only_when_established():
    apart = quality_said(quality_row("none", "*", "*", 0.3), quality_row("fair", "*", "*", 0.1))
    assert "the closest to the real ones overall: fair, 99.0 (79.0 to 119); next none" in apart
    near = quality_said(quality_row("none", "*", "*", 0.3), quality_row("fair", "*", "*", 0.29))
    assert "the order of the two is not established" in near


def test_paired_difference_with_zero_inside_establishes_nothing():
    pair = {"difference_to": "real", "difference": 0.02, "difference_low": -0.01, "difference_high": 0.05}
    rows = [fairness_row("real", "*", "*", 0.81), fairness_row("real+fair@1", "*", "*", 0.83, **pair)]
    text = fairness_said(*rows)
    assert "glaucoma, in distribution (held-out patients of the training sites): AUC 0.810" in text
    assert "paired difference +0.020 (-0.010 to 0.050): no difference established" in text


def test_paired_difference_that_leaves_zero_out():
    pair = {"difference_to": "real", "difference": -0.04, "difference_low": -0.06, "difference_high": -0.02}
    rows = [fairness_row("real", "*", "*", 0.81, "ood"), fairness_row("mix", "*", "*", 0.77, "ood", **pair)]
    assert "(-0.060 to -0.020): worse, zero is outside the interval" in fairness_said(*rows)


def test_gaps_are_counted_against_chance():
    inside = fairness_row("real", "sex", "gap", 0.12, null_low=0.0, null_high=0.15, p_value=0.2)
    outside = fairness_row("real", "age", "gap", 0.30, null_low=0.0, null_high=0.15, p_value=0.002)
    text = fairness_said(inside, outside)
    assert "1 of 2 gaps is larger than chance explains" in text
    assert "by sex: real 0.120 (chance alone up to 0.150, p = 0.20): not distinguishable from chance" in text
    assert "by age: real gap 0.300, chance alone gives up to 0.150, p = 0.002: larger than chance" in text


def test_change_of_a_gap_is_claimed_only_beyond_chance():
    firm = {"difference_to": "real", "difference": -0.1, "difference_low": -0.15, "difference_high": -0.05}
    loose = firm | {"difference_high": 0.01}
    gap = fairness_row("mix", "sex", "gap", 0.1)
    assert "gap by sex of mix against real: -0.100 (-0.150 to -0.050), narrower" in fairness_said(gap | firm)
    assert "no change of a gap against the baseline is established (mix)" in fairness_said(gap | loose)


def test_nothing_evaluated_is_said():
    assert said(quality_sentences(quality_frame(None))) == "Image quality was not evaluated."
    assert said(fairness_sentences(fairness_frame(None))) == "No diagnostic model was evaluated."


def test_seed_is_read_from_the_name_of_a_run():
    assert mechanism_and_seed("perturbation-s2") == ("perturbation", 2)
    assert mechanism_and_seed("group_dro/seed 11") == ("group_dro", 11)
    assert mechanism_and_seed("classes2") == ("classes2", None)


def test_primary_tasks_are_the_summaries():
    assert primary_tasks(["dx:mel", "dx:macro", "dx:high_risk"]) == ["dx:macro", "dx:high_risk"]
    assert primary_tasks(["glaucoma"]) == ["glaucoma"]
    assert primary_tasks(["a", "b", "c"]) == ["a"]
