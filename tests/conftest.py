"""What the tests of several rooms share: one small phantom cohort and one generator trained on it."""

import pytest

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.training import Run, TrainSettings, train

SIZE, IMAGES = 32, 120
TINY = {"preset": "tiny", "batch": 16, "probe_images": 16, "ema": 64.0, "warmup": 32}


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """A folder with 120 phantoms of 32 pixels, its table and its cohort.yaml. Read only."""
    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "p", IMAGES, seed=3, settings=PhantomSettings(size=SIZE), show=False
    )


@pytest.fixture(scope="session")
def phantom_cohort(phantom_folder) -> Cohort:
    return Cohort.read(phantom_folder / "cohort.yaml", show_progress=False)


@pytest.fixture(scope="session")
def generator(phantom_cohort, tmp_path_factory) -> Run:
    """A generator trained on 192 images: its pictures are noise, its folder is like any other."""
    place = tmp_path_factory.mktemp("generator")
    settings = TrainSettings(size=SIZE, images=192, mechanism="none", **TINY)
    return train(phantom_cohort, settings=settings, out=place / "g", latents=place / "latents", show=False)


@pytest.fixture(scope="session")
def pipeline(generator):
    return generator.pipeline()
