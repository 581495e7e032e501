"""What a user sees in an interactive session: public names, and objects that say what they are."""

import equigen as eg
from equigen.training import Run


def test_completion_lists_the_public_names():
    assert {"Cohort", "train", "plan", "generate", "evaluate", "audit", "report"} <= set(dir(eg))
    assert all(hasattr(eg, name) for name in dir(eg))


def test_a_cohort_and_a_run_say_what_they_are(phantom_cohort, generator, tmp_path):
    first, second = repr(phantom_cohort).splitlines()
    assert first == f"Cohort 'phantom': 120 images of {phantom_cohort.frame.patient.nunique()} patients"
    counts = phantom_cohort.frame.split.value_counts(sort=False)
    assert second == "labels: glaucoma; attributes: race, sex; splits: " + ", ".join(
        f"{name} {counts[name]}" for name in counts.index
    )
    assert repr(generator) == f"Run 'g' (none, seed 0, 192 images seen) in {generator.folder}"
    assert repr(Run(tmp_path, "x")) == f"Run 'x' (not finished) in {tmp_path}"
