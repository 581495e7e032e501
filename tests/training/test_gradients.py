"""Gradients in parts are those of one pass, min-SNR is diffusers', and a mechanism sees unweighted losses."""

from unittest.mock import patch

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from small_training import ALL, NONE, settings, trainer

from equigen.diffusion import STEPS, loss_per_image, min_snr_weights, noise_schedule
from equigen.equity import build_mechanism
from equigen.errors import EquigenError, InputError
from equigen.training import loop
from equigen.training.gradients import check_batch

USING = {"released", "group_dro", "minmax_noise"}
SEEN = 40  # images after which the gradients are looked at: by then each mechanism has something to remember


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_is_that_of_diffusers(prediction, gamma):
    schedule, steps = noise_schedule(prediction), torch.arange(STEPS)
    snr = compute_snr(schedule, steps)
    expected = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr if prediction == "epsilon" else snr + 1)
    weights = min_snr_weights(schedule, steps, gamma)
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-7)
    assert weights.dtype == torch.float32 and 0 <= weights.min() < weights.max() <= 1
    assert torch.equal(min_snr_weights(schedule, steps[[7, 900]], gamma), weights[[7, 900]])


def test_min_snr_where_there_is_no_signal():
    schedule = DDPMScheduler(prediction_type="epsilon", rescale_betas_zero_snr=True)
    schedule.alphas_cumprod[-1] = 0
    assert min_snr_weights(schedule, torch.tensor([999]), 5.0).tolist() == [1.0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Checkpoints of every mechanism after SEEN images."""
    folder = tmp_path_factory.mktemp("begun")
    for name, mechanism in ALL.items():
        trainer(folder / f"{name}.safetensors", mechanism, settings(SEEN)).run(show=False)
    return folder


@pytest.fixture
def opened(begun):
    """opened(name, **settings): a run that goes on after SEEN images."""

    def make(name, **changes):
        run = trainer(begun / f"{name}.safetensors", ALL[name], settings(48, **changes))
        assert run.images_seen == SEEN
        return run

    return make


def passed(run):
    """Gradients of the next batch in one vector, its losses, and how many images went through the network at a time."""
    sizes, batch, plain = [], run.stream.batch(run.images_seen), loss_per_image

    def watching(*inputs):
        sizes.append((len(inputs[3]), torch.is_grad_enabled()))
        return plain(*inputs)

    run.prepared.zero_grad()
    with patch.object(loop, "loss_per_image", watching):
        losses = run.backward(batch)
    found = [parameter.grad for parameter in run.network.parameters() if parameter.grad is not None]
    return torch.cat([grad.double().flatten() for grad in found]), losses, sizes


def same_state(one, two):
    assert set(one) == set(two)
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, two[key], rtol=1e-5, atol=1e-8)
        else:
            assert value == two[key]


@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("name", ALL)
def test_parts_add_up_to_one_pass(opened, name, parts):
    whole, cut = opened(name), opened(name, accumulate=parts)
    expected, losses, sizes = passed(whole)
    found, told, cuts = passed(cut)
    assert sizes == [(8, True)]
    assert cuts == [(8 // parts, False)] * parts * (name in USING) + [(8 // parts, True)] * parts
    assert (found - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(told, losses, rtol=1e-5, atol=1e-7)
    same_state(cut.mechanism.state_dict(), whole.mechanism.state_dict())


@pytest.mark.parametrize("name", sorted(set(ALL) - {"none", "balanced"}))
def test_these_gradients_are_not_those_of_plain_training(opened, begun, name):
    """What makes the test above one of the mechanism: with weights of 1 the same batch has other gradients."""
    run = opened(name)
    plain = trainer(begun / "aside.safetensors", NONE, settings(48))
    plain.network.load_state_dict(run.network.state_dict())
    plain.images_seen, plain.stream = run.images_seen, run.stream
    expected, found = passed(plain)[0], passed(run)[0]
    assert (found - expected).norm() > 0.01 * expected.norm()


def test_processes_wait_for_each_other_with_the_last_part_alone(opened):
    run, waits = opened("group_dro", accumulate=4), []
    plain = run.accelerator.no_sync

    def no_sync(model):
        waits.append(model)
        return plain(model)

    with patch.object(run.accelerator, "no_sync", no_sync):
        passed(run)
    assert waits == [run.model] * 3


@pytest.mark.parametrize("parts", [1, 2])
def test_a_mechanism_sees_unweighted_losses_and_min_snr_multiplies_its_weights(tmp_path, parts):
    run = trainer(tmp_path / "c.safetensors", NONE, settings(48, min_snr=2.0, accumulate=parts))
    seen, own = [], torch.linspace(0.5, 2, 8)
    rule = type("Own", (), {"weights": lambda _, losses, *rest: [seen.append(losses.clone()), own][1]})()
    run.mechanism = rule
    found, losses, _ = passed(run)
    batch = run.stream.batch(0)
    inputs = run.data.latents[batch.rows], batch.noise, batch.timesteps, batch.ids
    by_hand = loss_per_image(run.network, run.objective, *inputs)
    snr = compute_snr(noise_schedule(), batch.timesteps)
    run.network.zero_grad()
    (own * snr.clamp(max=2.0) / (snr + 1) * by_hand).mean().backward()
    expected = torch.cat([p.grad.double().flatten() for p in run.network.parameters() if p.grad is not None])
    assert (found - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(seen, [by_hand.detach()], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(losses, by_hand.detach(), rtol=1e-5, atol=1e-7)


def test_history_and_probe_are_of_unweighted_losses(tmp_path):
    """A rate of 1e-12 leaves the network where it was, so that only a weighting of the figures could change them."""
    rows = {}
    for gamma in (0.0, 0.5):
        chosen = settings(32, min_snr=gamma, learning_rate=1e-12)
        run = trainer(tmp_path / f"{gamma}.safetensors", chosen=chosen)
        run.run(show=False)
        rows[gamma] = run.history.rows
    for one, two in zip(rows[0.0], rows[0.5], strict=True):
        assert one[:4] == two[:4] and one[4] == pytest.approx(two[4], rel=1e-5)


def test_min_snr_changes_training(tmp_path):
    runs = [trainer(tmp_path / f"{gamma}", chosen=settings(16, min_snr=gamma)) for gamma in (0.0, 5.0)]
    for run in runs:
        run.run(show=False)
    one, two = (run.network.unet.conv_in.weight for run in runs)
    assert (one - two).abs().max() > 1e-4


@pytest.mark.parametrize("name", ALL)
def test_a_mechanism_declares_whether_it_uses_losses(name, opened):
    run = opened(name)
    rule, batch = run.mechanism, run.stream.batch(SEEN)
    assert run.uses_losses == (name in USING) == getattr(rule, "uses_losses", True)
    before, index = rule.state_dict(), run.data.index[batch.rows]
    losses, made = torch.linspace(0.1, 3, 8), []
    for told in (losses, losses.flip(0)):
        rule.load_state_dict(before)
        made.append((rule.weights(told, index, batch.timesteps, SEEN), rule.state_dict()))
    (one, after), (two, then) = made
    kept = all(torch.equal(value, then[key]) for key, value in after.items() if isinstance(value, torch.Tensor))
    assert (torch.equal(one, two) and kept) != (name in USING)


class Outside:
    """A mechanism of another package: it says nothing about losses."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name == "uses_losses":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def weights(self, losses, *rest):
        return losses / losses.mean()


def outside(tmp_path, declared, parts):
    run = trainer(tmp_path / f"{parts}.safetensors", chosen=settings(16, accumulate=parts))
    made = type("Declared", (Outside,), {} if declared is None else {"uses_losses": declared})
    run.mechanism = made(build_mechanism("none", run.data.groups, 0))
    return run


@pytest.mark.parametrize("declared", [None, True])
def test_a_mechanism_that_declares_nothing_gets_its_losses(tmp_path, declared):
    one, two = (passed(outside(tmp_path, declared, parts))[0] for parts in (1, 4))
    assert bool(one.isfinite().all()) and (one - two).norm() < 1e-5 * one.norm()


@pytest.mark.parametrize("parts", [1, 4])
def test_a_use_of_losses_that_was_denied_shows(tmp_path, parts):
    run = outside(tmp_path, False, parts)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    with pytest.raises(EquigenError, match=r"weight that is not finite after 0 images; it declares uses_losses"):
        run.run(show=False)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())


def test_a_batch_that_cannot_be_shared_out(tmp_path):
    check_batch(64, 4, 16)
    with pytest.raises(InputError, match="batch 64 on 3 processes"):
        check_batch(64, 3)
    with pytest.raises(InputError, match="batch 64 on 4 processes in 3 parts") as caught:
        check_batch(64, 4, 3)
    assert caught.value.problems[0].mend == "use a multiple of 12"
    with pytest.raises(InputError, match="batch 8 on 1 process in 3 parts"):
        trainer(tmp_path / "c.safetensors", chosen=settings(accumulate=3))
