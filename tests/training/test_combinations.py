"""Every mechanism with every setting of training: it trains, says what it does, and goes on bit for bit."""

import shutil
from unittest.mock import patch

import pytest
import torch
from small_training import ALL
from test_loop_and_resume import assert_same_run
from worded import settings, trainer

from equigen.checkpoints import load_checkpoint, select_prefix
from equigen.equity import Proposal

# windows of four steps, the first of which ends at 32 images; proposals are costly and tested elsewhere
MECHANISMS = {
    **ALL,
    "corrected": {"mechanism": "perturbation", "window_images": 32, "minimum": 1, "design": 64},
    "released": {"mechanism": "perturbation", "variant": "released", "time_window": 4},
}
SETTINGS = {
    "min-SNR": {"min_snr": 0.5},
    "parts": {"accumulate": 2},
    "noise offset": {"noise_offset": 0.3},
    "input perturbation": {"input_perturbation": 0.3},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "no average": {"ema": 0},
    "logit-normal": {"timestep_sampling": "logit_normal"},
    "pairs": {"part": "pairs"},
    "flow": {"predicts": "flow"},
    "v": {"predicts": "v"},
    "dropout": {"dropout": 0.3},
    "store": {"stored": True},
    "best": {"best": "worst_group"},
    "everything": {
        "min_snr": 0.5, "accumulate": 2, "noise_offset": 0.3, "input_perturbation": 0.3, "precision": "bf16",
        "timestep_sampling": "logit_normal", "part": "pairs", "predicts": "flow", "dropout": 0.3, "stored": True,
        "best": "overall",
    },
}  # fmt: skip
NETWORK = {"part", "predicts", "dropout", "stored"}
WIDELY = ("min-SNR", "parts", "noise offset", "input perturbation", "bf16", "no average", "pairs", "everything")
TABLE = [(mechanism, setting) for mechanism in MECHANISMS for setting in WIDELY]
TABLE += [(mechanism, other) for mechanism in ("corrected", "group_dro") for other in SETTINGS if other not in WIDELY]
CUTS = (24, 32, 40)  # a step before a window's end, at it, and in the midst of the next
STILL = {"none", "random", "reweight", "balanced"}  # which remember nothing that changes: one cut


def run_of(place, mechanism, setting):
    own = {key: value for key, value in SETTINGS.get(setting, {}).items() if key in NETWORK}
    changes = {key: value for key, value in SETTINGS.get(setting, {}).items() if key not in NETWORK}
    chosen = settings(48, checkpoint_every=1000, probe_every=40, log_every=24, **changes)
    return trainer(place, MECHANISMS[mechanism], chosen, **own)


@pytest.fixture(autouse=True)
def no_search():
    """The released mechanism's proposals without a Gaussian process, which is not what these tests are of."""

    def propose(points, rewards, *, seed, beta):
        return Proposal(points[int(rewards.argmax())] * 0.5, None)

    with patch("equigen.equity.perturbation.propose", propose):
        yield


def copying(run, folder):
    """Save at each cut too, into a file of its own."""
    plain = run.backward

    def backward(batch):
        if run.images_seen in CUTS:
            run.save()
            shutil.move(run.checkpoint, folder / f"{run.images_seen}.safetensors")
        return plain(batch)

    run.backward = backward
    return run


def tensors(place):
    return load_checkpoint(place)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Final weights of each mechanism without any of the settings."""
    made = {}

    def weights(mechanism):
        if mechanism not in made:
            run = run_of(tmp_path_factory.mktemp("plain") / "c.safetensors", mechanism, None)
            run.run(show=False)
            made[mechanism] = {name: value.detach().clone() for name, value in run.network.named_parameters()}
        return made[mechanism]

    return weights


@pytest.mark.parametrize(("mechanism", "setting"), TABLE)
def test_it_trains_and_goes_on_from_any_cut(tmp_path, plain, mechanism, setting):
    whole = tmp_path / "whole.safetensors"
    run = copying(run_of(whole, mechanism, setting), tmp_path)
    run.run(show=False)
    found = dict(run.network.named_parameters())
    assert all(bool(value.isfinite().all()) for value in found.values())
    distance = max((found[name] - value).abs().max().item() for name, value in plain(mechanism).items())
    if setting in {"parts", "no average", "store", "best"}:  # these leave the weights as they are, but for rounding
        assert distance < 1e-3
    else:
        assert distance > 1e-4
    for cut in (32,) if mechanism in STILL else CUTS:
        place = shutil.copy(tmp_path / f"{cut}.safetensors", tmp_path / "cut.safetensors")
        torch.manual_seed(cut)  # whatever else the second process does
        again = run_of(place, mechanism, setting)
        assert again.images_seen == cut
        again.run(show=False)
        assert_same_run(place, whole)


@pytest.mark.parametrize("mechanism", ["corrected", "released", "group_dro", "minmax_noise"])
def test_the_mechanisms_were_at_work(tmp_path, mechanism):
    """With all settings together they learned of groups, and what they remember changed within the run."""
    run = copying(run_of(tmp_path / "c.safetensors", mechanism, "everything"), tmp_path)
    run.run(show=False)
    early, late = (select_prefix("mechanism", tensors(tmp_path / f"{name}.safetensors")) for name in (24, "c"))
    key = {"corrected": "rewards", "released": "sigma", "group_dro": "log_factors", "minmax_noise": "excess"}[mechanism]
    assert early[key].shape != late[key].shape or (early[key] - late[key]).abs().max() > 1e-3
    if mechanism == "corrected":
        assert len(late["rewards"]) == 1 and bool(late["rewards"].isfinite().all())
