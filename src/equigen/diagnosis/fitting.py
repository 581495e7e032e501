"""Training of one classifier, resumed from checkpoints: the same steps, augmentation and selection for every recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from equigen.diagnosis.networks import Card, Classifier, SmallResNet, to_tensor
from equigen.diagnosis.recipes import Recipe, Stream
from equigen.errors import InputError, Problem
from equigen.fairness import auc
from equigen.files import replace_file
from equigen.model_files import nonfinite_weight
from equigen.progress import Bar, progress_bar
from equigen.seeds import torch_generator


@dataclass
class State:
    """The mutable state of a fit. ``best_score`` is None before a defined validation score."""

    network: SmallResNet
    average: SmallResNet
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    best_score: float | None = None
    step: int = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors by name; they are not copies, so that copying into them restores the state."""
        for prefix, tensors in {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
        }.items():
            yield from ((f"{prefix}/{name}", value) for name, value in tensors.items())
        for name, parameter in self.network.named_parameters():
            yield from ((f"adam/{name}/{key}", value) for key, value in self.optimizer.state[parameter].items())

    def save(self, path: Path, key: str) -> None:
        """Write the state; ``key`` is the hash of all settings and inputs."""
        score = "" if self.best_score is None else repr(self.best_score)
        with replace_file(path) as temporary:
            save_file(
                {name: value.detach().contiguous().cpu() for name, value in self.tensors()},
                temporary,
                metadata={"key": key, "step": str(self.step), "best_score": score},
            )

    def resume(self, path: Path, key: str) -> None:
        """Restore a checkpoint of the same key; without one the state is unchanged.

        Raises InputError for a file that is not a safetensors file of this state: a pickle, a damaged file, tensors
        that are missing, of another shape, NaN or infinite. The state is unchanged then, except for zero moments.
        """
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                if metadata["key"] != key:
                    return
                step, score = int(metadata["step"]), float(metadata["best_score"]) if metadata["best_score"] else None
                for parameter in self.network.parameters():
                    self.optimizer.state[parameter] = {
                        "step": torch.zeros(()),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                values = {name: handle.get_tensor(name) for name, _ in self.tensors()}
                for name, value in self.tensors():
                    if values[name].shape != value.shape:
                        raise ValueError(f"{name} is {list(values[name].shape)}, not {list(value.shape)}")
                fault = nonfinite_weight(values)
                if fault is not None:
                    raise ValueError(fault)
        except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
            problem = Problem(f"is no whole checkpoint ({error})", "delete it to start afresh", file=str(path))
            raise InputError("A checkpoint is damaged.", [problem]) from error
        with torch.no_grad():
            for name, value in self.tensors():
                value.copy_(values[name])
        self.step, self.best_score = step, score


@dataclass(frozen=True)
class Augmentation:
    """Random transformations of training images, drawn for each image, uniform in their ranges.

    ``flip`` mirrors left and right with probability one half: disable it where laterality matters
    for the diagnosis (situs). Images are never flipped vertically.
    """

    flip: bool = True
    rotate: float = 10.0  # degrees, in both directions
    scale: float = 0.1  # zoom between 1 - scale and 1 + scale
    shift: float = 0.05  # relative to the image size, in both directions
    brightness: float = 0.1  # added to pixels in [0, 1]
    contrast: float = 0.1  # factor 1 +- contrast around the image's mean
    saturation: float = 0.1  # factor 1 +- saturation around the pixel's grey


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment images [B, 3, H, W] in [0, 1]; random numbers come from a CPU generator on every device."""
    draws = (torch.rand(8, len(images), generator=generator) * 2 - 1).to(images.device)
    angle, zoom, right, down, light, contrast, saturation, flip = draws
    mirror = torch.where(flip < 0, -1.0, 1.0) if settings.flip else torch.ones_like(flip)
    angle, scale = angle * math.radians(settings.rotate), 1 + zoom * settings.scale
    shift = 2 * settings.shift * torch.stack([right, down], 1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    warped: Tensor = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = warped.mean(dim=1, keepdim=True)
    warped = grey + (warped - grey) * _factor(saturation, settings.saturation)
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    warped = mean + (warped - mean) * _factor(contrast, settings.contrast)
    augmented: Tensor = (warped + light.view(-1, 1, 1, 1) * settings.brightness).clamp(0, 1)
    return augmented


def _factor(draw: Tensor, strength: float) -> Tensor:
    """Factor 1 +- strength of each image."""
    factor: Tensor = (1 + draw * strength).view(-1, 1, 1, 1)
    return factor


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
