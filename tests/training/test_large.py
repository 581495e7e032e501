"""Data on the disk are the data in memory."""

import pytest
import torch

from equigen.cohort import Cohort, Manifest, pack
from equigen.errors import InputError
from equigen.latents import LatentView, encode_store, load_autoencoder, store
from equigen.training.datasets import prepare_memory_splits, prepare_stored_splits


@pytest.fixture(scope="module")
def coder():
    return load_autoencoder()


@pytest.fixture(scope="module", params=["cohort", "manifest", "manifest of shards"])
def opened(request, phantom_cohort, tmp_path_factory):
    """The phantoms as an ordinary cohort, as a manifest, and as a manifest whose images are in shards."""
    place, found = tmp_path_factory.mktemp("large"), phantom_cohort
    if request.param == "cohort":
        return found
    if request.param == "manifest of shards":
        found = Cohort.read(pack(found, place / "pack", images=50, show=False), show_progress=False)
    return Manifest.load(found.save(place / "saved"))


def test_a_store_gives_the_sides_that_memory_gives(opened, phantom_cohort, coder, tmp_path):
    expected = prepare_memory_splits(phantom_cohort, coder, tmp_path / "cache", 32, show=False)
    found = prepare_stored_splits(opened, coder, tmp_path / "store", 32, show=False)
    torch.testing.assert_close(torch.tensor(found.mean), torch.tensor(expected.mean), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.tensor(found.std), torch.tensor(expected.std), rtol=1e-3, atol=1e-4)
    for one, other in ((found.train, expected.train), (found.held_out, expected.held_out)):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.index, other.index) and one.groups == other.groups
        assert isinstance(one.latents, LatentView) and one.latents.shape == tuple(other.latents.shape)
        values = one.latents[torch.arange(len(one.latents))]
        torch.testing.assert_close(values, other.latents, rtol=0, atol=5e-3)  # batches of other images: half precision


def test_each_process_waits_for_all(phantom_cohort, coder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 8)
    with pytest.raises(InputError, match="are not encoded yet"):
        prepare_stored_splits(phantom_cohort, coder, tmp_path, 32, rank=2, world=3, show=False)
    part, shares = phantom_cohort.split("train", "val", domain="id"), []

    def others():
        for rank in (0, 1):
            shares.append(encode_store(part, coder, tmp_path, 32, rank=rank, world=3, show=False))

    found = prepare_stored_splits(phantom_cohort, coder, tmp_path, 32, rank=2, world=3, wait=others, show=False)
    assert len(shares) == 2 and len(found.train.latents) + len(found.held_out.latents) == len(part)
