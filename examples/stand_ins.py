"""Stand-ins for a base model and for data that cannot be shipped, so that the examples can be rehearsed.

    python examples/stand_ins.py sd-lora runs/stand-ins       # phantoms, and a small Stable Diffusion
    python examples/stand_ins.py fairgenmed runs/stand-ins    # a small tree in the shape of FairGenMed

Each writes what the example of that name needs, and the example itself with smaller numbers; run it with
``equigen run FOLDER/NAME.yaml``. Weights are random and patients made up: what comes out says nothing about either.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from equigen.cohort.phantom import PhantomSettings, render, sample_parameters, write_phantom
from equigen.diffusion.stand_in import stable_diffusion
from equigen.seeds import numpy_generator

HERE = Path(__file__).parent
SIDE, SIZE, PART = 8, 64, 8  # of latents and images; all widths of the base are divided by PART
SMALLER: dict[str, Any] = {
    "size": SIZE,
    "seeds": [0],
    "evaluate": {"replicates": 50},
    "diagnose": {"images": 2000},
}
TRAIN = {"images": 640, "batch": 16, "accumulate": 2, "probe_images": 32, "probe_every": 320, "grid_every": 640,
         "checkpoint_every": 320, "ema": 200, "warmup": 100, "gradient_checkpointing": False}  # fmt: skip
WORDS = {
    "md_severity": ["normal", "mild", "moderate", "severe"],
    "cdr_status": ["normal", "borderline", "abnormal"],
    "near_vision_refraction_stage": ["positive", "neutral", "negative"],
    "rnflt_status": ["normal", "borderline", "abnormal"],
}


def write_base(folder: Path, *texts: Path) -> Path:
    """A small pipeline of Stable Diffusion's classes, whose tokenizer knows the words of some files."""
    known = {word for text in texts for word in re.findall("[a-z]+", text.read_text().lower())} | {"unknown"}
    pipeline = stable_diffusion(SIDE, divisor=PART, whole_words=sorted(known))
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return folder


def write_fairgenmed(folder: Path, subjects: int = 400) -> None:
    """data_summary.csv and three folders with an NPZ for each subject, in the shape of FairGenMed, of phantoms."""
    draws, parameters = numpy_generator(0, "stand-in"), sample_parameters(subjects, 0, PhantomSettings())
    images = render(parameters, SIZE)
    parts = draws.choice(["Training", "Validation", "Test"], subjects, p=[0.6, 0.2, 0.2])
    table = pd.DataFrame({"filename": [f"data_{number:04d}.npz" for number in range(subjects)]})
    for name, levels in WORDS.items():
        table[name] = draws.choice(levels, subjects)
    for name, part, image, truth in zip(table["filename"], parts, images, parameters["glaucoma"], strict=True):
        (folder / part).mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / part / name, slo_fundus=image[..., 0], oct_bscans=np.zeros((2, 4, 4), np.uint8),
            glaucoma=int(truth == "glaucoma"), race=draws.integers(3), male=draws.integers(2),
            hispanic=draws.integers(2), maritalstatus=draws.integers(-1, 4), language=draws.integers(3),
        )  # fmt: skip
    table.to_csv(folder / "data_summary.csv", index=False)


def write_example(name: str, folder: Path, base: Path, **changes: Any) -> Path:
    """The example's own YAML with the stand-in base and smaller numbers."""
    study = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    for key, value in {**SMALLER, **changes}.items():
        study[key] = {**study[key], **value} if isinstance(value, dict) else value
    study["train"] = {**study["train"], **TRAIN, "base": str(base.resolve())}
    if isinstance(study["cohort"], dict):
        study["cohort"]["phantom"] = True  # nobody shall take the numbers for those of patients
    study["plans"] = {plan: {**own, "size": 120, "steps": 8} for plan, own in study["plans"].items()}
    place = folder / f"{name}.yaml"
    place.write_text(yaml.safe_dump(study, sort_keys=False))
    return place


def main() -> None:
    """Write what one example needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=["sd-lora", "fairgenmed"])
    parser.add_argument("folder", type=Path, help="where to write")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Any] = {}
    texts = [HERE / f"{given.example}.yaml"]
    if given.example == "sd-lora":
        place = write_phantom(given.folder / "phantoms", 600, settings=PhantomSettings(size=SIZE)) / "cohort.yaml"
        changes["cohort"] = str(place.resolve())
        texts.append(place)
    else:
        write_fairgenmed(given.folder / "fairgenmed")
    base = write_base(given.folder / "base", *texts)
    study = write_example(given.example, given.folder, base, **changes)
    print(f"equigen run {study}")


if __name__ == "__main__":
    main()
