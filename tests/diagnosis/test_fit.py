"""The pieces of a fit: loss, augmentation, schedule, network, and going on after an interruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from equigen.diagnosis import Augmentation, Classifier, FitSettings, SmallResNet
from equigen.diagnosis import fitting as module
from equigen.diagnosis.fitting import Pool, State, augment, class_weights, fit, learning_rate, loss, macro_auc
from equigen.diagnosis.networks import Card
from equigen.diagnosis.recipes import parse_recipe
from equigen.errors import InputError
from equigen.seeds import torch_generator

NAN = float("nan")
TINY = FitSettings(images=192, batch=16, width=8, validations=3, precision="fp32")


def pool(n=48, seed=0):
    rng = np.random.default_rng(seed)
    sick = np.arange(n) % 2
    images = np.clip(rng.normal(90 + 60 * sick[:, None, None, None], 30, (n, 16, 16, 3)), 0, 255).astype(np.uint8)
    return Pool(images, sick[:, None].astype(np.float32))


def test_unknown_targets_count_nothing():
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [NAN, 0.0]])
    expected = (functional.softplus(torch.tensor(-0.3)) + functional.softplus(torch.tensor(0.5))) / 2
    value = loss(logits, targets, "multilabel")
    value.backward()
    assert value.item() == pytest.approx(expected.item())
    assert logits.grad[0, 1] == 0 and logits.grad[1, 0] == 0 and torch.isfinite(logits.grad).all()
    several = loss(logits, torch.tensor([[0.0, 1.0], [NAN, NAN]]), "multiclass")
    assert several.item() == pytest.approx(functional.cross_entropy(logits[:1], torch.tensor([1])).item())


def test_class_weights():
    multiclass = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [NAN, NAN]], dtype=np.float32)
    assert class_weights(multiclass, "multiclass").tolist() == pytest.approx([0.5, 1.5])
    assert class_weights(multiclass[:, 1:], "binary").tolist() == pytest.approx([3.0])


def test_macro_auc_skips_what_has_one_class():
    targets = np.array([[0, 1], [1, 1], [1, NAN]], dtype=np.float32)
    scores = np.array([[0.2, 0.5], [0.1, 0.5], [0.9, 0.5]], dtype=np.float32)
    assert macro_auc(targets, scores) == pytest.approx(0.5)
    assert macro_auc(targets[:, 1:], scores[:, 1:]) is None


def test_learning_rate():
    settings = FitSettings(images=6400, batch=64, warmup=0.1, learning_rate=1.0)
    values = [learning_rate(step, settings) for step in range(100)]
    assert values[0] == pytest.approx(0.1) and max(values) == values[9] == 1.0
    assert values[55] == pytest.approx(0.5) and 0 < values[-1] < 0.01


def test_no_augmentation_is_the_identity_and_flip_a_mirror():
    images = torch.rand(6, 3, 8, 8)
    still = Augmentation(flip=False, rotate=0, scale=0, shift=0, brightness=0, contrast=0, saturation=0)
    assert torch.allclose(augment(images, still, torch_generator(0, "t")), images, atol=1e-5)
    flipped = augment(images, replace(still, flip=True), torch_generator(0, "t"))
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(flipped, images, strict=True)]
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(flipped, images, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True)) and any(mirrored) and any(same)


def test_augmentation_is_by_its_generator_and_stays_in_range():
    images = torch.rand(6, 3, 16, 16)
    first, again = (augment(images, Augmentation(), torch_generator(0, "t", 1)) for _ in range(2))
    other = augment(images, Augmentation(), torch_generator(0, "t", 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 1 and (first - images).abs().mean() > 0.01


def test_network_by_its_seed_alone_and_round_trip(tmp_path):
    state = torch.get_rng_state()
    one, same, other = SmallResNet(3, 8, 0), SmallResNet(3, 8, 0), SmallResNet(3, 8, 1)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    classifier = Classifier(one, Card("dx", "multiclass", ["a", "b", "c"], 16, 8))
    images = pool().images
    found = classifier.predict(images, batch=7)
    assert found.shape == (48, 3) and found.sum(axis=1) == pytest.approx(np.ones(48), abs=1e-5)
    classifier.save(tmp_path)
    loaded = Classifier.load(tmp_path)
    assert np.array_equal(loaded.predict(images, batch=7), found) and loaded.card == classifier.card
    assert classifier.predict(images[:0]).shape == (0, 3)


@pytest.mark.parametrize("harm", ["pickle", "nan", "shape", "absent"])
def test_a_classifier_or_checkpoint_that_is_not_whole_is_named(tmp_path, harm):
    network = SmallResNet(3, 8, 0)
    Classifier(network, Card("dx", "multiclass", ["a", "b", "c"], 16, 8)).save(tmp_path)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter]["step"] = torch.zeros(())
    best = {name: value.clone() for name, value in network.state_dict().items()}
    state = State(network, SmallResNet(3, 8, 1), optimizer, best, None, 7)
    path = tmp_path / "checkpoint.safetensors"
    state.save(path, "key")
    state.step = 0
    state.resume(path, "key")
    assert state.step == 7
    for file, prefix in ((tmp_path / "model.safetensors", ""), (path, "best/")):
        with safe_open(file, framework="pt") as handle:
            facts, names = handle.metadata(), [*handle.keys()]
            tensors = {name: handle.get_tensor(name).clone() for name in names}  # the file is written over
        name = prefix + "head.bias"
        assert name in tensors
        if harm == "absent":
            del tensors[name]
        else:
            tensors[name] = torch.full_like(tensors[name], torch.nan) if harm == "nan" else torch.zeros(1)
        if harm == "pickle":
            torch.save(tensors, file)
        else:
            save_file(tensors, file, metadata=facts)
    state.step = 0
    with pytest.raises(InputError, match="A checkpoint is damaged") as error:
        state.resume(path, "key")
    assert error.value.problems[0].file == str(path) and state.step == 0
    with pytest.raises(InputError, match="classifier cannot be used") as error:
        Classifier.load(tmp_path)
    assert error.value.problems[0].file == str(tmp_path)


class Stop(Exception):
    pass


def test_going_on_gives_the_same_weights(tmp_path, monkeypatch):
    card, recipe, pools = (
        Card("sick", "binary", ["yes"], 16, 8),
        parse_recipe("real+fair@1", ["fair"]),
        {"real": pool(), "fair": pool(30, 5)},
    )
    whole = fit(pools, pool(20, 9), recipe, card, TINY, show=False)
    path = tmp_path / "checkpoint.safetensors"
    real_step = module._step

    def stopping(state, *args, **kwargs):
        if state.step == 7:
            raise Stop
        real_step(state, *args, **kwargs)

    monkeypatch.setattr(module, "_step", stopping)
    with pytest.raises(Stop):
        fit(pools, pool(20, 9), recipe, card, TINY, checkpoint=path, key="k", show=False)
    monkeypatch.setattr(module, "_step", real_step)
    steps = []
    monkeypatch.setattr(module, "_step", lambda state, *a, **k: (steps.append(state.step), real_step(state, *a, **k)))
    resumed = fit(pools, pool(20, 9), recipe, card, TINY, checkpoint=path, key="k", show=False)
    assert steps == list(range(4, 12))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    steps.clear()
    fit(pools, pool(20, 9), recipe, card, TINY, checkpoint=path, key="other", show=False)
    assert steps[0] == 0


def test_the_best_in_validation_is_kept(monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    kept = []
    monkeypatch.setattr(module, "macro_auc", lambda *_: next(scores))
    real = module._validate

    def watched(state, *args):
        real(state, *args)
        kept.append((state.step, {name: value.clone() for name, value in state.average.state_dict().items()}))

    monkeypatch.setattr(module, "_validate", watched)
    found = fit(
        {"real": pool()},
        pool(10, 2),
        parse_recipe("real", []),
        Card("sick", "binary", ["yes"], 16, 8),
        TINY,
        show=False,
    )
    assert [step for step, _ in kept] == [4, 8, 12]
    assert all(torch.equal(value, kept[1][1][name]) for name, value in found.network.state_dict().items())
    assert not torch.equal(found.network.head.weight, kept[2][1]["head.weight"])


def test_classes_balanced_for_every_arm_by_the_real_images(monkeypatch):
    seen = []
    real_loss = module.loss
    monkeypatch.setattr(module, "loss", lambda *args: (seen.append(args[3]), real_loss(*args))[1])
    rare = Pool(pool(40).images, (np.arange(40) < 10).astype(np.float32)[:, None])
    settings = replace(TINY, images=16, class_balanced=True)
    fit(
        {"real": rare, "fair": pool()},
        pool(10, 2),
        parse_recipe("synthetic:fair", ["fair"]),
        Card("sick", "binary", ["yes"], 16, 8),
        settings,
        show=False,
    )
    assert seen[0].tolist() == pytest.approx([3.0])
