"""The judge is checked on reconstructions: half of what it recognises on real images has to be left."""

import numpy as np
import pandas as pd
import pytest

from equigen.quality import ImageSet, evaluate
from equigen.quality.judge.questions import JudgePredictions, Target
from equigen.quality.judge.reconstruction_check import (
    RECONSTRUCTION_FAILURE,
    UNCHECKED,
    LevelRecognition,
    level_recognition,
    reconstruction_note,
)
from equigen.report.study.semantic import semantic_sentences


def answers(real, reconstructed, column="attr.race", n=6):
    """Constant probabilities of the first of two levels; n images show each level."""
    truth = np.repeat([0, 1], n)
    tables = [np.column_stack([np.full(2 * n, p), np.full(2 * n, 1 - p)]) for p in (real, reconstructed)]
    return JudgePredictions(Target(column, ["asian", "white"]), *tables, truth, truth)


def test_recognised_by_hand():
    asian, white = level_recognition([answers(0.796, 0.018)])
    assert asian == LevelRecognition("attr.race", "asian", pytest.approx(0.796), pytest.approx(0.018))
    assert asian.fails and not white.fails


@pytest.mark.parametrize("reconstructed, fails", [(0.41, False), (0.4, False), (0.39, True)])
def test_the_rule_is_half(reconstructed, fails):
    assert level_recognition([answers(0.8, reconstructed)])[0].fails is fails


def test_levels_of_few_images_say_nothing():
    assert level_recognition([answers(0.8, 0.1, n=4)]) == []


def test_the_note_names_level_and_figures_of_its_own_kind():
    pair = [answers(0.796, 0.018), answers(0.9, 0.8, "label.dx")]
    assert reconstruction_note(pair, "attr") == (
        "the judge fails on reconstructions (attr.race asian 0.018 after 0.796 on real images), so what it misses in "
        "generated images is no generator's fault"
    )
    assert "all of its 2 levels are recognised there" in reconstruction_note(pair, "label")
    assert reconstruction_note(None, "attr") == UNCHECKED


class Brightness:
    """Features: mean red, which shows dx, and mean green, which shows race."""

    name, weight_hash, preprocessing, dimension = "brightness", "0", "none", 2

    def __call__(self, images):
        return images.reshape(len(images), -1, 3).mean(axis=1)[:, :2].astype(np.float32) / 255, None


def side(seed, race_shown=True, n=160):
    rng = np.random.default_rng(seed)
    ill, asian = rng.random(n) < 0.5, rng.random(n) < 0.5
    pixels = rng.integers(60, 100, (n, 4, 4, 3))
    pixels[..., 0] += 80 * ill[:, None, None]
    pixels[..., 1] += 80 * (asian & race_shown)[:, None, None]
    frame = pd.DataFrame({
        "patient": [f"{seed} {index}" for index in range(n)],
        "label.dx": np.where(ill, "ill", "well"), "attr.race": np.where(asian, "asian", "white"),
    }, dtype=object)  # fmt: skip
    return ImageSet(frame, pixels.astype(np.uint8))


def measured(**sets):
    return evaluate(
        side(0), sets, ["race"], labels=["dx"], encoder=Brightness(), replicates=20, repeats=1,
        metrics=["semantic_auc", "semantic_attribute_probability"], show=False,
    ).quality  # fmt: skip


def notes(quality, run, metric):
    return set(quality[(quality["run"] == run) & (quality["metric"] == metric)]["note"])


def test_rows_of_a_failing_question_say_so_and_no_generator_is_blamed():
    quality = measured(reconstruction=side(1, race_shown=False), none=side(2, race_shown=False))
    told = notes(quality, "none", "semantic_attribute_probability")
    assert all(f"{RECONSTRUCTION_FAILURE} (attr.race asian " in note for note in told)
    assert not any(RECONSTRUCTION_FAILURE in note for note in notes(quality, "none", "semantic_auc"))
    probabilities = notes(quality, "reconstruction", "semantic_attribute_probability")
    assert not any(RECONSTRUCTION_FAILURE in note for note in probabilities)
    said = [item for item in semantic_sentences(quality) if "attribute asked for seen" in item.text]
    assert [item.tone for item in said] == ["finding"]
    assert "cannot be attributed to the generator" in said[0].parts[0] and "below the ceiling" not in said[0].parts[0]


def test_a_generator_is_blamed_where_the_judge_holds_on_reconstructions():
    quality = measured(reconstruction=side(1), none=side(2, race_shown=False))
    assert not any(RECONSTRUCTION_FAILURE in note for note in notes(quality, "none", "semantic_attribute_probability"))
    said = [item for item in semantic_sentences(quality) if "attribute asked for seen" in item.text]
    assert [item.tone for item in said] == ["caution"] and "below the ceiling" in said[0].parts[0]


def test_without_reconstructions_the_note_says_so():
    assert all(UNCHECKED in note for note in notes(measured(none=side(2)), "none", "semantic_auc"))


def test_generated_files_that_are_real_ones_are_told(tmp_path):
    from equigen.quality.features import same_files_remark

    for name, content in {"r0": b"one", "r1": b"two", "g0": b"two", "g1": b"three"}.items():
        (tmp_path / name).write_bytes(content)
    real, made = (ImageSet(pd.DataFrame({"path": [str(tmp_path / f"{side}{k}") for k in (0, 1)]})) for side in "rg")
    assert same_files_remark(made, real, "generated images", "real images") == (
        "1 of 2 generated images are byte for byte real images: 'row 2' is 'row 3'"
    )
    assert same_files_remark(side(0), real, "generated images", "real images") == ""
