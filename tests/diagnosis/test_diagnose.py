"""From a cohort to predictions: learning, what is predicted, equal seeds, and not doing things twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigen.diagnosis import Classifier, FitSettings, diagnose
from equigen.diagnosis import diagnose as function
from equigen.errors import InputError
from equigen.fairness import auc, audit

TINY = FitSettings(images=64, batch=16, width=8, validations=2, precision="fp32")
LEARN = FitSettings(images=1600, batch=32, width=8, validations=2)
COLUMNS = [
    "recipe",
    "seed",
    "task",
    "image",
    "patient",
    "site",
    "split",
    "domain",
    "truth",
    "probability",
    "attr.sex",
]


def test_it_learns_and_synthetic_images_teach(cohort, synthetic, inverted):
    table = diagnose(
        cohort,
        {"fair": synthetic, "wrong": inverted},
        recipes=["real", "real+fair@1", "synthetic"],
        size=16,
        settings=LEARN,
        show=False,
    )
    assert list(table.columns) == COLUMNS
    test = table[table["split"] == "test"]
    found = {
        recipe: float(auc(rows["truth"].to_numpy(), rows["probability"].to_numpy()))
        for recipe, rows in test.groupby("recipe")
    }
    assert found["real"] > 0.95 and found["real+fair@1"] > 0.95 and found["synthetic:fair"] > 0.9
    assert found["synthetic:wrong"] < 0.2
    rows = audit(table, replicates=20, permutations=20, min_patients=3).table
    assert set(rows["domain"]) == {"all", "id", "ood", "north", "south"}
    assert rows.loc[rows["recipe"] == "real+fair@1", "difference"].notna().any()


def test_rows_are_held_out_images_of_known_diagnosis(cohort):
    table = diagnose(cohort, size=16, settings=TINY, show=False)
    frame = cohort.frame[cohort.frame["split"].isin(["val", "test"]) & cohort.frame["label.sick"].notna()]
    assert table["image"].tolist() == frame["image"].tolist() and set(table["recipe"]) == {"real"}
    assert table["truth"].tolist() == (frame["label.sick"] == "yes").astype(int).tolist()
    assert table["attr.sex"].isna().tolist() == frame["attr.sex"].isna().tolist()
    assert table["domain"].tolist() == frame["domain"].tolist() and table["probability"].between(0, 1).all()


def test_kinds_of_labels(cohort):
    table = diagnose(cohort, label=["dx", "findings"], size=16, settings=TINY, show=False)
    assert list(dict.fromkeys(table["task"])) == [
        "dx:nv",
        "dx:mel",
        "dx:bcc",
        "dx:high_risk",
        "findings:a",
        "findings:b",
    ]
    wide = table[table["task"].str.startswith("dx")].pivot(index="image", columns="task", values="probability")
    assert wide[["dx:nv", "dx:mel", "dx:bcc"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(wide)), abs=1e-4)
    assert wide["dx:high_risk"].to_numpy() == pytest.approx((wide["dx:mel"] + wide["dx:bcc"]).to_numpy(), abs=1e-5)


def test_equal_seeds_equal_predictions(cohort):
    first = diagnose(cohort, seeds=[0, 1], size=16, settings=TINY, show=False)
    again = diagnose(cohort, seeds=[1], size=16, settings=TINY, show=False)
    one = first[first["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, again)
    zero = first[first["seed"] == 0].reset_index(drop=True)
    assert not np.allclose(zero["probability"], one["probability"])


def test_validation_and_test_images_are_never_learnt(cohort):
    """Whatever the diagnoses of the test images are, the probabilities stay the same."""
    other = replace(cohort, frame=cohort.frame.copy())
    test = other.frame["split"] == "test"
    other.frame.loc[test, "label.sick"] = "yes"
    first, second = (diagnose(c, size=16, settings=TINY, show=False).set_index("image") for c in (cohort, other))
    shared = first.index.intersection(second.index)
    assert np.array_equal(first.loc[shared, "probability"], second.loc[shared, "probability"])


def test_finished_recipes_are_not_run_again(cohort, synthetic, tmp_path, monkeypatch):
    settings = replace(TINY, images=32)
    first = diagnose(cohort, synthetic, size=16, settings=settings, out=tmp_path, show=False)
    assert set(first["recipe"]) == {"real", "real+synthetic@1"}
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), first)
    folder = tmp_path / "sick" / "real" / "seed0"
    assert not (folder / "checkpoint.safetensors").exists() and Classifier.load(folder).card.outputs == ["yes"]
    fitted = []
    module = __import__("sys").modules[function.__module__]
    real_fit = module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: (fitted.append(a[2].name), real_fit(*a, **k))[1])
    pd.testing.assert_frame_equal(
        diagnose(cohort, synthetic, size=16, settings=settings, out=tmp_path, show=False), first
    )
    assert fitted == []
    diagnose(cohort, synthetic, ratios=[0, 2], size=16, settings=settings, out=tmp_path, show=False)
    assert fitted == ["real+synthetic@2"]
    diagnose(cohort, size=16, settings=replace(settings, learning_rate=3e-3), out=tmp_path, show=False)
    assert fitted == ["real+synthetic@2", "real"]


def test_what_cannot_be_done_is_said_first(cohort, synthetic, tmp_path):
    say = {"size": 16, "settings": TINY, "show": False}
    with pytest.raises(InputError, match="labels are: sick, dx, findings"):
        diagnose(cohort, label="sik", **say)
    with pytest.raises(InputError, match="needs a synthetic set"):
        diagnose(cohort, ratios=[0, 1], **say)
    with pytest.raises(InputError, match=r"there is no synthetic\.parquet"):
        diagnose(cohort, tmp_path / "absent", **say)
    with pytest.raises(InputError, match=r"label\.dx"):
        diagnose(cohort, synthetic, label="dx", **say)
    with pytest.raises(InputError, match="called 'real'"):
        diagnose(cohort, {"real": synthetic}, **say)
    with pytest.raises(InputError, match="split 'val' is empty"):
        diagnose(replace(cohort, frame=cohort.frame[cohort.frame["split"] != "val"]), **say)
    unknown = replace(cohort, frame=cohort.frame.assign(**{"label.sick": None}))
    with pytest.raises(InputError, match="known 'sick'"):
        diagnose(unknown, **say)


def test_only_accepted_images_are_used(cohort, synthetic, tmp_path):
    from equigen.diagnosis.training_images import read_source

    source = read_source(synthetic, ["sick"])
    assert len(source.table) == 39 and source.remark == "1 of 40 images were refused by screening and are left out"
    table = pd.read_parquet(synthetic / "synthetic.parquet").assign(accepted=False)
    table.to_parquet(tmp_path / "synthetic.parquet")
    with pytest.raises(InputError, match="no accepted image"):
        diagnose(cohort, tmp_path, size=16, settings=TINY, show=False)


@pytest.mark.parametrize("show", [True, False])
def test_it_is_said_how_many_were_left_out(cohort, synthetic, capsys, show):
    diagnose(cohort, {"fair": synthetic}, recipes=["real"], size=16, settings=TINY, show=show)
    told = " ".join(capsys.readouterr().err.split())
    assert ("fair: 1 of 40 images were refused by screening and are left out" in told) == show


@pytest.mark.parametrize("name", ["predictions.parquet", "model.safetensors", "model.json", "done.json"])
def test_a_damaged_fit_is_told_and_made_again(cohort, tmp_path, capsys, name):
    wanted = diagnose(cohort, recipes=["real"], size=16, settings=TINY, out=tmp_path, show=False)
    (file,) = (path for path in tmp_path.rglob(name) if path.parent != tmp_path)
    for harm in (lambda: file.write_bytes(file.read_bytes()[:30]), file.unlink):
        harm()
        again = diagnose(cohort, recipes=["real"], size=16, settings=TINY, out=tmp_path, show=False)
        pd.testing.assert_frame_equal(again, wanted)
        assert file.is_file()
    assert "is damaged" in " ".join(capsys.readouterr().err.split())
