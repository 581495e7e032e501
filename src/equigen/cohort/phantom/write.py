"""Write a phantom cohort to disk: images, table and cohort.yaml; an interrupted command can be run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from equigen.cohort.phantom.parameters import PhantomSettings, sample_parameters
from equigen.cohort.phantom.render import render
from equigen.errors import InputError, Problem
from equigen.files import read_json, write_json, write_text
from equigen.pngs import is_complete_png, write_png
from equigen.progress import progress_bar

BATCH = 64
COLUMNS = ("image", "patient", "sex", "race", "glaucoma", "site", "eye", "cup_disc_ratio", "pigmentation")


def _claim(out: Path, seed: int, settings: PhantomSettings, verify_owner: bool) -> None:
    """Write ``phantom.json`` unless it exists; InputError if the folder holds another phantom or other images."""
    mark, expected = out / "phantom.json", {"seed": seed, "settings": settings.model_dump(mode="json")}
    if mark.is_file():
        try:
            recorded = read_json(mark)
        except ValueError as error:
            problem = Problem(f"it is no JSON: {error}", "choose another folder", file=str(mark))
            raise InputError("The settings beside the images cannot be read.", [problem]) from error
        if recorded != expected:
            old, new = _flatten(recorded), _flatten(expected)
            problems = [
                Problem(
                    f"{name} is {old.get(name, 'absent')} there and {new.get(name, 'absent')} here",
                    "use the same settings and seed, or another folder",
                    file=str(mark),
                )
                for name in sorted(old.keys() | new.keys())
                if old.get(name, "absent") != new.get(name, "absent")
            ]
            raise InputError(f"The folder {out} holds another phantom.", problems)
        return
    if verify_owner and (out / "images").is_dir() and any((out / "images").iterdir()):
        problem = Problem("it has images, but no phantom.json", "choose an empty folder", file=str(out))
        raise InputError("The folder holds images that are not this phantom's.", [problem])
    write_json(mark, expected)


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name."""
    if not isinstance(value, dict):
        return {name: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _flatten(item, f"{name}.{key}" if name else str(key))
    return leaves


def _specification(seed: int, settings: PhantomSettings) -> dict[str, Any]:
    """Return the content of cohort.yaml; healthy is the negative level of the label, glaucoma the positive one."""
    split: dict[str, Any] = {"fractions": {"train": 0.7, "val": 0.1, "test": 0.2}, "seed": seed}
    split["ood"] = [name for name, camera in settings.sites.items() if camera.ood]
    return {
        "name": "phantom",
        "phantom": True,
        "table": "metadata.csv",
        "image": {"column": "image", "root": "images"},
        "patient": "patient",
        "site": "site",
        "split": split,
        "labels": {"glaucoma": {"kind": "binary", "column": "glaucoma", "levels": ["healthy", "glaucoma"]}},
        "attributes": {
            "race": {"column": "race", "levels": list(settings.races)},
            "sex": {"column": "sex", "levels": list(settings.sexes)},
        },
        "prompt": "SLO fundus photograph of a {race} {sex} patient with {glaucoma}",
    }


def write_phantom(
    out: str | Path,
    images: int = 4000,
    seed: int = 0,
    settings: PhantomSettings | None = None,
    *,
    show: bool = True,
    verify_owner: bool = True,
) -> Path:
    """Write a phantom cohort into a folder and return the folder.

    It holds ``images/000000.png`` and so on (lossless), ``metadata.csv`` with the columns ``COLUMNS``,
    ``cohort.yaml`` for ``Cohort.read`` and ``phantom.json`` with the seed and the settings. Images that are
    there and whole are kept, so the same command goes on after an interruption, and one with more images
    adds to a smaller phantom. The table and cohort.yaml are written last: a folder that has them is complete.
    ``show`` draws a progress bar. ``verify_owner``: refuse a folder with images and no ``phantom.json``; without it,
    the file is written again, for a caller that knows whose images they are.

    Raises InputError if ``images`` is below 1, or if the folder holds a phantom of another seed or other
    settings (with every difference), or images of another origin.
    """
    if images < 1:
        problem = Problem(f"{images} images were asked for", "ask for at least 1")
        raise InputError("A phantom needs images.", [problem])
    folder, settings = Path(out), settings or PhantomSettings()
    _claim(folder, seed, settings, verify_owner)
    params = sample_parameters(images, seed, settings)
    names = [f"{row:06d}.png" for row in range(images)]
    missing = [row for row in range(images) if not is_complete_png(folder / "images" / names[row], settings.size)]
    with progress_bar("phantom", images, completed=images - len(missing), show=show) as bar:
        for start in range(0, len(missing), BATCH):
            rows = missing[start : start + BATCH]
            for row, image in zip(rows, render(params.iloc[rows], settings.size), strict=True):
                write_png(folder / "images" / names[row], image)
            bar.advance(len(rows))
    table = params.assign(image=names)[list(COLUMNS)]
    write_text(folder / "metadata.csv", table.to_csv(index=False))
    write_text(folder / "cohort.yaml", yaml.safe_dump(_specification(seed, settings), sort_keys=False))
    return folder
