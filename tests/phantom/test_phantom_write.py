from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, render, sample_parameters, write_phantom
from equigen.errors import InputError

SMALL = PhantomSettings(size=32)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _write(folder: Path, images: int = 12, seed: int = 1, settings: PhantomSettings = SMALL) -> Path:
    return write_phantom(folder, images, seed, settings, show=False)


def test_images_and_table_hold_what_was_drawn(tmp_path: Path) -> None:
    folder = _write(tmp_path / "phantom")
    params = sample_parameters(12, 1, SMALL)
    table = pd.read_csv(folder / "metadata.csv")
    assert list(table.columns) == [
        "image", "patient", "sex", "race", "glaucoma", "site", "eye", "cup_disc_ratio", "pigmentation",
    ]  # fmt: skip
    assert table["image"].tolist()[:2] == ["000000.png", "000001.png"]
    wanted = params[list(table.columns[1:])]
    pd.testing.assert_frame_equal(table.drop(columns="image"), wanted, check_dtype=False)
    for row, image in enumerate(render(params, 32)):
        assert np.array_equal(np.asarray(Image.open(folder / "images" / table["image"][row])), image)


def test_specification_tells_the_roles(tmp_path: Path) -> None:
    spec = yaml.safe_load((_write(tmp_path) / "cohort.yaml").read_text())
    assert spec["phantom"] is True
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    assert spec["split"] == {"fractions": fractions, "seed": 1, "ood": ["gamma"]}
    assert spec["labels"]["glaucoma"]["levels"] == ["healthy", "glaucoma"]
    assert spec["attributes"]["race"]["levels"] == ["asian", "black", "white"]
    assert spec["attributes"]["sex"]["levels"] == ["female", "male"]


def test_cohort_reads_it(tmp_path: Path) -> None:
    cohort = Cohort.read(_write(tmp_path, images=60) / "cohort.yaml")
    params = sample_parameters(60, 1, SMALL)
    assert len(cohort) == 60
    assert cohort.frame["label.glaucoma"].tolist() == params["glaucoma"].tolist()
    assert cohort.frame["attr.race"].tolist() == params["race"].tolist()
    gamma = (cohort.frame["site"] == "gamma").to_numpy()
    assert gamma.any()
    assert ((cohort.frame["domain"] == "ood").to_numpy() == gamma).all()
    targets, names = cohort.targets("glaucoma")
    assert names == ["glaucoma"]
    assert np.array_equal(targets[:, 0] == 1, (params["glaucoma"] == "glaucoma").to_numpy())


def test_broken_images_are_made_again_and_whole_ones_left_alone(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    before = _bytes(folder)
    images = folder / "images"
    (images / "000003.png").unlink()
    (images / "000005.png").write_bytes((images / "000005.png").read_bytes()[:200])
    (images / "000006.png").write_bytes(b"")
    Image.new("RGB", (16, 16)).save(images / "000007.png")
    old = (images / "000001.png").stat().st_mtime_ns
    _write(folder)
    assert _bytes(folder) == before
    assert (images / "000001.png").stat().st_mtime_ns == old


def test_more_images_add_to_a_smaller_phantom(tmp_path: Path) -> None:
    grown = _write(_write(tmp_path / "grown", images=5), images=12)
    assert _bytes(grown) == _bytes(_write(tmp_path / "whole", images=12))


def test_folder_of_another_phantom_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    before = _bytes(folder)
    with pytest.raises(InputError, match=r"settings\.size is 32 there and 48 here"):
        _write(folder, settings=PhantomSettings(size=48))
    with pytest.raises(InputError, match="seed is 1 there and 2 here"):
        _write(folder, seed=2)
    assert _bytes(folder) == before


def test_folder_with_foreign_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"no phantom\.json"):
        _write(tmp_path)
    assert not (tmp_path / "phantom.json").exists()


def test_unreadable_settings_beside_the_images_are_told(tmp_path: Path) -> None:
    folder = _write(tmp_path, images=1)
    (folder / "phantom.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        _write(folder, images=1)


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        _write(tmp_path / "none", images=0)
    assert not (tmp_path / "none").exists()


def test_a_lost_record_is_written_again_where_the_owner_is_known(tmp_path):
    folder = write_phantom(tmp_path / "p", 3, seed=1, settings=PhantomSettings(size=32), show=False)
    record = (folder / "phantom.json").read_bytes()
    (folder / "phantom.json").unlink()
    with pytest.raises(InputError, match=r"no phantom\.json"):
        write_phantom(folder, 3, seed=1, settings=PhantomSettings(size=32), show=False)
    write_phantom(folder, 3, seed=1, settings=PhantomSettings(size=32), show=False, verify_owner=False)
    assert (folder / "phantom.json").read_bytes() == record
