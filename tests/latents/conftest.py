"""Small phantoms, tiny random autoencoders, and a cohort of a few dozen images."""

import pytest
import torch
from diffusers import AutoencoderKL

from equigen.cohort import Cohort
from equigen.cohort.phantom import PhantomSettings, render, sample_parameters, write_phantom
from equigen.latents import load_autoencoder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def phantoms():
    """phantoms(n, size, seed): [n, size, size, 3] uint8."""

    def make(n, size, seed=0):
        return render(sample_parameters(n, seed, PhantomSettings()), size)

    return make


@pytest.fixture(scope="session")
def shipped():
    return load_autoencoder()


@pytest.fixture
def kl_folder(tmp_path):
    """A random AutoencoderKL on RGB with factor 4 and three latent channels, saved by diffusers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(4, 4, 8),
            layers_per_block=1,
            latent_channels=3,
            norm_num_groups=2,
        )
    network.save_pretrained(str(tmp_path / "kl"), safe_serialization=True)
    return tmp_path / "kl"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Thirty phantoms of 32 pixels."""
    folder = write_phantom(tmp_path_factory.mktemp("phantom"), 30, 0, PhantomSettings(size=32), show=False)
    return Cohort.read(folder / "cohort.yaml", show_progress=False)
