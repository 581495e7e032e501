"""A study file beside the phantom's data, small enough for tests."""

import copy
from pathlib import Path

import yaml

from equigen.study import run_study

COHORT = {
    "name": "tiny",
    "phantom": True,
    "table": "metadata.csv",
    "image": {"column": "image", "root": "images"},
    "patient": "patient",
    "site": "site",
    "split": {"fractions": {"train": 0.35, "val": 0.15, "test": 0.5}, "seed": 1, "ood": ["gamma"]},
    "labels": {"glaucoma": {"kind": "binary", "column": "glaucoma", "levels": ["healthy", "glaucoma"]}},
    "attributes": {
        "race": {"column": "race", "levels": ["asian", "black", "white"]},
        "sex": {"column": "sex", "levels": ["female", "male"]},
    },
    "prompt": "A {race} {sex} patient with {glaucoma}",
}
STUDY = {
    "name": "tiny",
    "cohort": COHORT,
    "size": 32,
    "train": {
        "preset": "tiny", "images": 96, "batch": 16, "probe_images": 16, "warmup": 32, "ema": 64,
        "checkpoint_every": 32, "log_every": 32, "probe_every": 96,
    },
    "mechanisms": {"none": {}, "perturbation": {"window_images": 48, "minimum": 2}},
    "plans": {
        "match": {"policy": "match", "size": 36, "steps": 2},
        "balanced": {"policy": "balanced", "size": 12, "steps": 2},
    },
    "evaluate": {"replicates": 20, "encoder": "efficientnet-lite0@64"},
    "diagnose": {"images": 64, "width": 8},
    "audit": {"replicates": 20, "permutations": 20},
}  # fmt: skip


class StudyFolder:
    """A study file beside the phantom's data, and a run folder."""

    def __init__(self, data: Path, place: Path) -> None:
        self.place, self.out, self.values = place, place / "run", copy.deepcopy(STUDY)
        self.values["cohort"]["table"] = str(data / "metadata.csv")
        self.values["cohort"]["image"]["root"] = str(data / "images")

    @property
    def file(self) -> Path:
        return self.place / "study.yaml"

    def write(self) -> Path:
        self.place.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(self.values, sort_keys=False))
        return self.file

    def run(self, overrides=None) -> Path:
        return run_study(self.write(), self.out, overrides, show=False)

    def stamps(self) -> dict[str, int]:
        """When each stage was finished."""
        return {
            path.parent.relative_to(self.out).as_posix(): path.stat().st_mtime_ns
            for path in self.out.rglob("stage.json")
            if "stale" not in path.parts
        }
