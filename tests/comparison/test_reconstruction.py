"""What the autoencoder alone costs in a comparison, held against what evaluate says of the same images."""

from types import SimpleNamespace

import pytest
import yaml

from equigen.cohort import Cohort, load_images
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.comparison import measurement
from equigen.comparison import reconstruction as module
from equigen.comparison.evaluation import Sample
from equigen.comparison.measurement import measure
from equigen.comparison.settings import ComparisonSettings
from equigen.latents import load_autoencoder
from equigen.quality import ImageSet, evaluate

ENCODER, SIZE = "efficientnet-lite0@64", 32


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """Nearly all images are held out, so that each group has enough patients for a number."""
    folder = write_phantom(tmp_path_factory.mktemp("held-out") / "p", 300, seed=5, settings=PhantomSettings(size=SIZE),
                           show=False)  # fmt: skip
    values = yaml.safe_load((folder / "cohort.yaml").read_text())
    values["split"]["fractions"] = {"train": 0.05, "val": 0.05, "test": 0.9}
    (folder / "cohort.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Cohort.read(folder / "cohort.yaml", show_progress=False)


def settings(**rest) -> ComparisonSettings:
    asked = {"groups": ["sex"], "encoder": ENCODER, "replicates": 40, "permutations": 40, **rest}
    return ComparisonSettings.model_validate({"name": "c", "cohort": {}, "size": SIZE, "evaluate": asked})


def test_it_is_what_evaluate_says_of_the_same_images(cohort, tmp_path):
    real, coder = measurement.test_images(cohort), load_autoencoder()
    there = ImageSet(real.frame, coder.reconstruct(load_images(list(real.frame["path"]), SIZE)), real.levels)
    rows = evaluate(real, there, ["sex"], metrics=["kd"], encoder=ENCODER, size=SIZE, replicates=40,
                    intersections=False, cache_dir=tmp_path, show=False).table.set_index("group")  # fmt: skip
    found = module.measure_reconstruction(settings(), cohort, {"default": coder}, tmp_path, False).set_index("figure")
    names = {"overall": "*", "female": "female", "male": "male", "gap": "gap"}
    wanted = [rows["excess"][name] for name in names.values()]
    assert [found["estimate"][name] for name in names] == pytest.approx(wanted)
    assert min(wanted[:3]) > 0.1  # the autoencoder does cost something
    assert found["estimate"]["worst"] == pytest.approx(max(wanted[1:3]))
    assert found["n"]["overall"] == rows["matched_n"]["*"]
    assert (found["ci_low"] < found["estimate"]).all() and (found["estimate"] < found["ci_high"]).all()
    assert found["null_gap"].notna().tolist() == [name == "gap" for name in found.index]
    assert not found["note"].str.contains("seed").any()  # nothing was trained


def test_one_that_loses_nothing_costs_nothing_and_settings_may_share_one(cohort, tmp_path):
    opened = []

    def coder(own):
        return SimpleNamespace(hash=own, reconstruct=lambda pixels: (opened.append(own), pixels)[1])

    coders = {name: coder(own) for name, own in (("b", "x"), ("a", "y"), ("c", "x"))}
    table = module.measure_reconstruction(settings(), cohort, coders, tmp_path, False)
    assert opened == ["x", "y"]
    assert list(dict.fromkeys(table["setting"])) == ["b", "a", "c"]
    for _, own in table.groupby("figure"):
        assert own["estimate"].nunique() == 1
    whole = table[table["figure"] == "overall"].iloc[0]
    assert whole["ci_low"] < 0 < whole["ci_high"]  # other patients' images, and no pair of an image with itself


def test_reconstructions_have_no_distance_to_themselves(cohort, tmp_path):
    there = module.reconstructions(settings(), cohort, load_autoencoder())
    sample = Sample("default", "none", 0, "match", 1.0, there)
    summary = measure(settings(against="reconstructions"), there, [sample], tmp_path, False).summary
    whole = summary[summary["figure"] == "overall"].iloc[0]
    assert whole["patient_low"] < 0 < whole["patient_high"]


def test_no_more_is_drawn_than_a_cell_may_hold_whole_patients_and_asked_diagnoses(cohort):
    frame = cohort.split("test", domain="id").frame
    drawn = module._sample_images(settings(limit=60), cohort)
    assert len(drawn) <= 60 < len(frame)
    assert set(frame.loc[frame["patient"].isin(drawn.frame["patient"]), "path"]) == set(drawn.frame["path"])
    assert drawn.remark == f"{len(drawn)} of {len(frame)} real images, drawn by patient"
    only = module._sample_images(settings(only={"glaucoma": "healthy"}), cohort)
    assert set(only.frame["label.glaucoma"]) == {"healthy"} and 0 < len(only) < len(frame)
