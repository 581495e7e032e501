"""The shipped autoencoder on patients that it never saw, by the rule of the tool that trained it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from equigen.cohort import square
from equigen.latents import psnr

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"


def tool():
    place = importlib.util.spec_from_file_location("shipping", ROOT / "tools" / "train_shipped_autoencoder.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["nih_cxr14", "padufes20", "ham10000"])
def test_thirty_decibels_on_held_out_patients(shipped, name):
    if not (DATA / name).is_dir():
        pytest.skip(f"the folder {name} is not beside the project")
    shipping = tool()
    unit = shipping.UNITS[name]
    table = shipping.read(DATA / name, unit)
    assert table.groupby(unit)["held_out"].nunique().max() == 1  # a patient is on one side
    held_out = table.query("held_out") if name in shipping.SEEN else table.sample(300, random_state=1)
    assert 0.1 < table["held_out"].mean() < 0.3 and len(held_out) >= 100
    images = np.stack([square(image, 64) for image in shipping.pictures(held_out["path"])])
    decoded = np.concatenate([shipped.decode(shipped.encode(part)) for part in np.array_split(images, 6)])
    assert psnr(images, decoded).mean() >= 30
