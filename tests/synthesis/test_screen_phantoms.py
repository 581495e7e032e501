"""Screening by a judge fitted on real phantoms: the oracle, which knows how they are made, confirms what it does."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_world import GLAUCOMA, RACE, PhantomPainter
from screen_world import row, write_set

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import Oracle, PhantomSettings, write_phantom
from equigen.quality import fit_classifier
from equigen.synthesis import plan, screen

SIZE, IMAGES = 32, 420
OTHER = {"asian": "black", "black": "white", "white": "black"}


class ColourEncoder:
    """Mean and spread of each channel: enough to tell the pigmentation of a fundus."""

    name, weight_hash, preprocessing, dimension = "colour", "none", "none", 6

    def __call__(self, images):
        values = images.astype(np.float32) / 255
        return np.concatenate([values.mean(axis=(1, 2)), values.std(axis=(1, 2))], axis=1), None


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """Phantoms of one camera, races in equal numbers."""
    usual = PhantomSettings(size=SIZE)
    even = {name: look.model_copy(update={"share": 1 / 3}) for name, look in usual.races.items()}
    settings = PhantomSettings(size=SIZE, races=even, sites={"alpha": usual.sites["alpha"].model_copy(
        update={"share": 1.0})})  # fmt: skip
    folder = write_phantom(tmp_path_factory.mktemp("even") / "p", IMAGES, seed=5, settings=settings, show=False)
    return Cohort.read(folder / "cohort.yaml", show_progress=False)


def test_images_of_the_wrong_race_are_found_and_replaced(cohort, tmp_path):
    """A third of what the generator makes shows another race; the judge has seen training images alone."""
    judge = fit_classifier(cohort.split("train"), size=SIZE, encoder=ColourEncoder(), columns=["attr.race"],
                           min_patients=10, show=False)  # fmt: skip
    painter = PhantomPainter(lambda row, luck: OTHER[row["attr.race"]] if luck < 0.3 else row["attr.race"], size=SIZE)
    rows = plan(cohort, "balanced", 120, seed=1)
    place = write_set(tmp_path / "set", rows, painter)
    before = right(place, rows)
    held_out = cohort.split("val", "test")
    found = screen(place, painter, judge, tries=4, held_out=held_out, min_patients=20, replicates=60, show=False)
    frame = found.synthetic.frame
    kept = frame["accepted"].to_numpy(dtype=bool)
    after = Oracle().judge(load_images(list(frame["path"]), SIZE))["race"].to_numpy() == frame["attr.race"].to_numpy()
    assert before.mean() < 0.75 and after[kept].mean() > 0.93 and kept.mean() > 0.9
    assert (right(place, rows) == before).all()  # the first images are as they were
    first = row(found.table, "accepted_first")["estimate"]
    assert 0.55 < first < 0.8
    assert row(found.table, "false_rejection")["estimate"] < 0.15
    assert row(found.table, "excess_rejection")["ci_low"] > 0.1  # the generator's doing, not the screen's
    assert {own.name for own in judge.targets} == {RACE.name} and GLAUCOMA.name not in set(found.table["field"])


def right(folder, rows) -> np.ndarray:
    """What the oracle says of the first images."""
    names = [folder / f"images/{index:07d}.png" for index in range(len(rows))]
    return Oracle().judge(load_images(names, SIZE))["race"].to_numpy() == rows["attr.race"].to_numpy()
