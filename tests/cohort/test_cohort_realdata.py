"""The three real folders, with the counts of their papers and of DATA.md."""

from pathlib import Path

import pytest

from equigen.cohort import Cohort

DATA = Path(__file__).parents[2].parent / "shared/data"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real image folders are not beside the project"),
]

SEX = {"column": "sex", "levels": {"F": "female", "M": "male"}}
AGE = {"column": "age", "bins": [0, 40, 60, 120], "names": ["under 40", "40 to 59", "60 and over"]}
HAM = {
    "name": "ham10000",
    "table": "metadata.csv",
    "image": {"column": "file"},
    "patient": "lesion_id",
    "site": "site",
    "split": {"fractions": {"train": 0.7, "val": 0.1, "test": 0.2}, "seed": 0, "ood": ["rosendahl"]},
    "labels": {"dx": {"kind": "multiclass", "column": "dx", "high_risk": ["mel", "bcc", "akiec"]}},
    "attributes": {"sex": SEX, "age": AGE},
    "missing": ["", "unknown", "NA"],
    "prompt": "Dermoscopic image of a {sex} patient aged {age} with {dx}",
}
DX = {"NEV": "nv", "MEL": "mel", "BCC": "bcc", "SCC": "akiec", "ACK": "akiec", "SEK": "bkl"}
SKIN = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI"}
PAD = {
    "name": "padufes20",
    "table": "metadata.csv",
    "image": {"column": "file"},
    "patient": "patient_id",
    "labels": {"dx": {"kind": "multiclass", "column": "diagnostic", "levels": DX}},
    "attributes": {"sex": SEX, "skin": {"column": "fitzpatrick", "levels": SKIN}},
}
ABNORMAL = {"0_normal": "normal", "1_abnormal": "abnormal"}
NIH = {
    "name": "nih",
    "table": "metadata.csv",
    "image": {"column": "file"},
    "patient": "patient_id",
    "labels": {
        "findings": {"kind": "multilabel", "column": "findings"},
        "abnormal": {"kind": "binary", "column": "abnormal", "levels": ABNORMAL},
    },
    "attributes": {"sex": SEX, "view": {"column": "view"}, "age": AGE},
}


def read(spec: dict, folder: str) -> Cohort:
    return Cohort.from_spec(spec, DATA / folder, show_progress=False)


def counts(cohort: Cohort, column: str) -> dict:
    return cohort.frame[column].value_counts().to_dict()


def test_ham10000():
    cohort = read(HAM, "ham10000")
    assert len(cohort) == 10015 and cohort.frame["patient"].nunique() == 7470
    assert counts(cohort, "label.dx") == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115,
    }  # fmt: skip
    assert counts(cohort, "attr.sex") == {"male": 5406, "female": 4552}
    assert cohort.frame["attr.age"].isna().sum() == cohort.frame["attr.sex"].isna().sum() == 57
    assert counts(cohort, "site")["rosendahl"] == 2259 == len(cohort.split("test", domain="ood"))
    assert not cohort.split("train", "val").frame["site"].eq("rosendahl").any()
    assert cohort.frame.groupby("patient")["split"].nunique().max() == 1
    inside = cohort.where(cohort.frame["domain"] == "id").frame
    patients = inside.groupby("split")["patient"].nunique()
    wanted = {"train": 0.7, "val": 0.1, "test": 0.2}
    assert (patients / patients.sum()).to_dict() == pytest.approx(wanted, abs=0.02)
    melanoma = inside[inside["label.dx"] == "mel"]["split"].value_counts(normalize=True)
    assert melanoma.to_dict() == pytest.approx(wanted, abs=0.06)


def test_padufes20():
    cohort = read(PAD, "padufes20")
    assert len(cohort) == 869 and cohort.frame["patient"].nunique() == 669
    assert counts(cohort, "label.dx") == {"nv": 216, "mel": 46, "bcc": 256, "akiec": 178 + 33, "bkl": 140}
    assert cohort.attributes["skin"].levels == ["I", "II", "III", "IV", "V", "VI"]
    assert counts(cohort, "attr.skin") == {"II": 295, "III": 150, "I": 55, "IV": 29, "V": 3, "VI": 1}
    assert cohort.frame["attr.sex"].isna().sum() == (cohort.groups("skin") == -1).sum() == 336
    text = " ".join(str(item) for item in cohort.warnings)
    assert "rows 17, 369: byte-identical images with different values of label.dx" in text


def test_nih_cxr14():
    cohort = read(NIH, "nih_cxr14")
    assert len(cohort) == 1000 and cohort.frame["patient"].nunique() == 264
    truth, names = cohort.targets("findings")
    assert len(names) == 14 and (truth.sum(axis=1) == 0).sum() == 499
    assert counts(cohort, "label.abnormal") == {"normal": 500, "abnormal": 500}
    assert counts(cohort, "attr.sex") == {"female": 509, "male": 491}
    effusion = cohort.frame["label.findings"].str.split("|").map(lambda found: "Effusion" in found)
    assert truth[:, names.index("Effusion")].sum() == effusion.sum() > 65
