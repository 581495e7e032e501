"""Training of one classifier, with the same steps, augmentation, schedule and model selection for every recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from equigen.diagnosis.augment import Augmentation, augment
from equigen.diagnosis.checkpoint import State
from equigen.diagnosis.networks import Card, Classifier, SmallResNet, to_tensor
from equigen.diagnosis.recipes import Recipe, Stream
from equigen.fairness import auc
from equigen.progress import Bar, progress_bar
from equigen.seeds import torch_generator

EMA_RAMP = 10  # of the decay of the weight average in its first steps k, (1 + k) / (10 + k)


@dataclass(frozen=True)
class FitSettings:
    """Training settings of every classifier of a study; the length is counted in images."""

    images: int = 40_000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.05  # of convolutions and the head, not of norms and biases
    ema: float = 0.99  # of the weights, per step
    width: int = 32  # channels of the first stage
    validations: int = 8  # number of validations of the average (and of checkpoints)
    class_balanced: bool = False  # weight classes by their frequencies in the real training split, in every recipe
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the hardware supports it
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def steps(self) -> int:
        """Number of optimisation steps."""
        return max(1, math.ceil(self.images / self.batch))


@dataclass(frozen=True)
class Pool:
    """Images [N, S, S, 3] uint8 with targets [N, K] of 0, 1 and NaN (unknown)."""

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]

    def labelled(self) -> Pool:
        """The pool without images of unknown targets."""
        mask = np.isfinite(self.targets).any(axis=1)
        return Pool(self.images[mask], self.targets[mask])


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16; ``auto`` where the hardware supports it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def loss(logits: Tensor, targets: Tensor, kind: str, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy (multiclass) or mean binary cross-entropy over known targets; NaN targets are ignored.

    Args:
        logits: [B, K].
        targets: [B, K] of 0, 1 and NaN.
        kind: binary, multilabel or multiclass.
        weights: [K] weight of each class (multiclass) or of each positive (otherwise); None is 1.

    """
    mask = torch.isfinite(targets)
    if kind == "multiclass":
        rows = mask.all(dim=1)
        return functional.cross_entropy(logits[rows], targets[rows].argmax(dim=1), weight=weights)
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets.nan_to_num(), pos_weight=weights, reduction="none"
    )
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def class_weights(targets: NDArray[np.float32], kind: str) -> Tensor:
    """Inverse class frequency (mean 1), or negatives per positive; [K]. A class without rows counts as one row."""
    positive = np.maximum(np.nansum(targets, axis=0), 1)
    if kind == "multiclass":
        return torch.tensor((1 / positive) / (1 / positive).mean(), dtype=torch.float32)
    counts = np.isfinite(targets).sum(axis=0)
    return torch.tensor(np.maximum(counts - positive, 1) / positive, dtype=torch.float32)


def macro_auc(targets: NDArray[np.float32], probability: NDArray[np.float32]) -> float | None:
    """Mean AUC over the outputs that have both classes among the known rows; None without such an output."""
    values = []
    for column in range(targets.shape[1]):
        rows = np.isfinite(targets[:, column])
        values.append(float(auc(targets[rows, column], probability[rows, column])))
    defined = [value for value in values if math.isfinite(value)]
    return float(np.mean(defined)) if defined else None


def learning_rate(step: int, settings: FitSettings) -> float:
    """Learning rate of a step: linear warm-up, then cosine decay to 0 (Loshchilov and Hutter, ICLR 2017)."""
    warm = max(1, round(settings.warmup * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def fit(
    pools: Mapping[str, Pool],
    validation: Pool,
    recipe: Recipe,
    card: Card,
    settings: FitSettings,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    show: bool = True,
) -> Classifier:
    """Train one network on a recipe and return the weight average that is best in validation.

    An exponential average of the weights is validated ``settings.validations`` times; the one with the highest macro
    AUC on the validation split (real images, in every recipe) is returned, and the last one where no output has both
    classes in validation. With ``checkpoint`` an interrupted fit is resumed with identical weights.

    Args:
        pools: images by source, ``real`` included; rows of unknown targets are left out.
        validation: the validation split.
        recipe: shares of the sources.
        card: metadata of the network.
        settings: those of training.
        seed: of weights, order and augmentation.
        device: None is the CPU.
        checkpoint: safetensors file to resume from and to write.
        key: hash of settings and inputs; a checkpoint with another key is not used.
        show: show a progress bar.

    """
    device = device or torch.device("cpu")
    pools = {source: pools[source].labelled() for source in {"real", *recipe.shares}}
    stream = Stream(recipe, {source: len(pools[source].images) for source in recipe.shares}, settings.batch, seed)
    balance = class_weights(pools["real"].targets, card.kind).to(device) if settings.class_balanced else None
    state, bf16 = _start(card, settings, seed, device), uses_bf16(settings.precision, device)
    if checkpoint is not None:
        state.resume(checkpoint, key)
    every = math.ceil(settings.steps / settings.validations)
    with progress_bar(
        f"{recipe.name}, seed {seed}", settings.steps * settings.batch, state.step * settings.batch, show
    ) as bar:
        while state.step < settings.steps:
            rows = stream.step(state.step)
            batch = np.concatenate([pools[source].images[indices] for source, indices in rows.items()])
            truth = np.concatenate([pools[source].targets[indices] for source, indices in rows.items()])
            generator = torch_generator(seed, "diagnosis/augmentation", state.step)
            images = augment(to_tensor(batch, device), settings.augmentation, generator)
            targets = torch.from_numpy(truth).to(device)
            _step(state, images, targets, settings=settings, kind=card.kind, balance=balance, bf16=bf16)
            bar.advance(settings.batch)
            if state.step % every == 0 or state.step == settings.steps:
                _validate(state, validation, card, bf16, bar)
                if checkpoint is not None:
                    state.save(checkpoint, key)
    state.average.load_state_dict(state.best)
    return Classifier(state.average.eval(), card)


def _start(card: Card, settings: FitSettings, seed: int, device: torch.device) -> State:
    """The initial state: network, weight average and optimizer."""
    network = SmallResNet(len(card.outputs), settings.width, seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False)
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    undecayed = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": undecayed, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    return State(network, average, optimizer, {name: value.clone() for name, value in average.state_dict().items()})


def _step(
    state: State,
    images: Tensor,
    targets: Tensor,
    *,
    settings: FitSettings,
    kind: str,
    balance: Tensor | None,
    bf16: bool,
) -> None:
    """Update the weights by one step of AdamW, then their average."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, settings)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = state.network(images)
    state.optimizer.zero_grad()
    loss(logits.float(), targets, kind, balance).backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    decay = min(settings.ema, (1 + state.step) / (EMA_RAMP + state.step))
    with torch.no_grad():
        for mean, value in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
    state.step += 1


def _validate(state: State, validation: Pool, card: Card, bf16: bool, bar: Bar) -> None:
    """Store the weight average if it is the best; of ties and undefined scores the later one."""
    score = macro_auc(validation.targets, Classifier(state.average, card).predict(validation.images, bf16=bf16))
    bar.note(f"validation AUC {score:.3f}" if score is not None else "validation AUC undefined")
    if score is None or state.best_score is None or score >= state.best_score:
        state.best_score = score
        state.best = {name: value.clone() for name, value in state.average.state_dict().items()}
