"""Training on one thread of a CPU, where it is reproducible bit for bit; and a phantom cohort of a few dozen images."""

from unittest.mock import patch

import pytest
import torch
from small_training import SMALL

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, write_phantom
from equigen.diffusion import PRESETS
from equigen.training import TrainSettings, train


@pytest.fixture(autouse=True, scope="session")
def one_thread_of_a_cpu():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setenv("ACCELERATE_USE_CPU", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_preset():
    with patch.dict(PRESETS, tiny=SMALL):
        yield


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Seventy-two phantoms of 32 pixels, some of them of a site out of distribution."""
    folder = write_phantom(tmp_path_factory.mktemp("phantom"), 72, 0, PhantomSettings(size=32), show=False)
    return Cohort.read(folder / "cohort.yaml", show_progress=False)


@pytest.fixture
def quick():
    """quick(**changes): settings of a run of some steps of 8 images."""

    def make(**changes):
        common = {
            "size": 32, "preset": "tiny", "images": 48, "batch": 8, "warmup": 8, "ema": 16, "probe_images": 8,
            "probe_every": 16, "log_every": 16, "checkpoint_every": 16, "mechanism": "none", "seed": 1,
        }  # fmt: skip
        return TrainSettings(**{**common, **changes})

    return make


@pytest.fixture(scope="session")
def latents(tmp_path_factory):
    """Folder of the phantoms' latents, encoded once."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def go(cohort, latents, tmp_path, quick, small_preset):
    """go(folder name, **settings): train on the phantoms."""

    def run(name="g", on=None, **changes):
        return train(on or cohort, settings=quick(**changes), out=tmp_path / name, latents=latents, show=False)

    return run
