"""Settings of a training run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from equigen.diffusion import Prediction, Preset
from equigen.diffusion import TrainableWeights as Tune
from equigen.equity import mechanism_identity, mechanism_label, mechanism_reference

Tracker = Literal["none", "auto", "tensorboard", "wandb", "mlflow"]


class TrainSettings(BaseModel):
    """Hyperparameters of a training run. Time is counted in images seen, whatever the batch size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(64, ge=16)  # side of the images, pixels
    base: str | None = None  # text-to-image pipeline to fine-tune: folder, or hub id
    tune: Tune | None = None  # what of it is trained; None: lora of a base, else the network
    rank: int = Field(16, ge=1)  # of LoRA
    alpha: float | None = Field(None, gt=0)  # of LoRA; None: the rank
    text_encoder: str | None = None  # without a base: prompts, by `minilm` or a folder, for tokens
    preset: Preset = "small"  # network: tiny (2 M parameters), small (6 M), base (53 M)
    prediction: Prediction = "v_prediction"  # or epsilon
    images: int = Field(200_000, ge=1)  # length of training
    batch: int = Field(64, ge=1)  # global batch, over all processes
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit needs bitsandbytes, and a quarter of the memory
    learning_rate: float = Field(6e-4, gt=0)  # at the peak
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine falls to a tenth of the peak
    warmup: int = Field(5_000, ge=0)  # images of linear warm-up
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)  # largest gradient norm
    ema: float = Field(20_000, ge=0)  # half-life of the averaged weights in images; 0 keeps none
    drop_all: float = Field(0.1, ge=0, le=1)  # chance that an image's whole condition is dropped
    drop_one: float = Field(0.05, ge=0, le=1)  # chance that one token of it is dropped
    noise_offset: float = Field(0, ge=0)  # std of a constant in each channel of the noise; 0.1 is a lot
    input_perturbation: float = Field(0, ge=0)  # gamma of noise that the network sees and is not asked for
    timestep_sampling: Literal["uniform", "logit_normal"] = "uniform"  # logit_normal is usual for flow matching
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU; on a CPU it is no faster here
    gradient_checkpointing: bool = False  # a third more work, far less memory: activations made twice
    sharding: Literal["none", "full"] = "none"  # full: each process holds its part of weights and state (FSDP)
    probe_images: int = Field(128, ge=8)  # images of each fixed probe (training side, held-out side)
    probe_every: int = Field(20_000, ge=1)  # images between two measurements of both probes
    log_every: int = Field(2_000, ge=1)  # images over which training losses are averaged
    checkpoint_every: int = Field(20_000, ge=1)  # images between two checkpoints
    snapshot_every: int = Field(0, ge=0)  # images between two kept generators; 0 keeps the last alone
    best: Literal["none", "overall", "worst_group"] = "none"  # weights of the lowest validation loss, not the last
    grid_every: int = Field(0, ge=0)  # images between two grids of samples; 0 makes none
    trackers: Tracker | None = None  # auto: TensorBoard where installed; None: auto with prompts
    start: str | None = None  # folder of a generator whose weights are gone on from
    min_snr: float = Field(0, ge=0)  # gamma of min-SNR loss weights, 5 is usual; 0: none
    store: Literal["memory", "disk"] = "memory"  # of latents; disk: read as needed, for very large cohorts
    accumulate: int = Field(1, ge=1)  # parts in which a batch passes the network, to save memory
    mechanism: Annotated[str, BeforeValidator(mechanism_reference)] = "perturbation"
    mechanism_settings: dict[str, Any] = {}
    seed: int = 0

    @property
    def reads_text(self) -> bool:
        """Whether conditions are prompts; otherwise tokens."""
        return self.base is not None or self.text_encoder is not None

    @property
    def tracker(self) -> Tracker:
        """The experiment tracker."""
        return self.trackers or ("auto" if self.reads_text else "none")

    @property
    def trainable_weights(self) -> Tune:
        """The weights of a text-to-image pipeline that are trained."""
        return self.tune or ("lora" if self.base is not None else "unet")

    @model_validator(mode="after")
    def _check_combinations(self) -> TrainSettings:
        """Refuse settings that the kind of training would silently ignore."""
        messages = []
        if self.base is not None and self.text_encoder is not None:
            messages.append("base and text_encoder: a base has a text encoder of its own; give one of the two")
        if self.base is not None and (self.preset, self.prediction) != ("small", "v_prediction"):
            messages.append("preset and prediction are the base's own: leave them out")
        if not self.reads_text and self.tune is not None:
            messages.append("tune says what of a text-to-image pipeline is trained: give base or text_encoder")
        if self.text_encoder is not None and self.trainable_weights.startswith("lora"):
            messages.append("tune: LoRA goes into a trained network; without a base use unet or unet+text")
        lora = self.reads_text and self.trainable_weights.startswith("lora")
        if (self.rank, self.alpha) != (16, None) and not lora:
            messages.append("rank and alpha are LoRA's: give a base, and tune lora")
        if messages:
            raise ValueError("; ".join(messages))
        return self

    @property
    def mechanism_label(self) -> str:
        """The mechanism's short name, for folders and headings: the class, of one in a file."""
        return mechanism_label(self.mechanism)

    def key_values(self) -> dict[str, Any]:
        """Return the settings as JSON values that belong in a run's key.

        A mechanism of a file counts by its class and content, wherever the file lies.
        """
        return {**self.model_dump(mode="json"), "mechanism": mechanism_identity(self.mechanism)}

    def learning_rate_at(self, images_seen: int) -> float:
        """Return the learning rate: linear warm-up, then constant, or half a cosine from the peak to a tenth of it."""
        warmup_factor = min(1.0, (images_seen + self.batch) / max(self.warmup, 1))
        if self.schedule == "constant":
            return self.learning_rate * warmup_factor
        progress = min(1.0, images_seen / self.images)
        return self.learning_rate * warmup_factor * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))

    def ema_decay_at(self, images_seen: int) -> float:
        """Return the weight of the old average in one step: 0.5^(batch / half-life), the half-life growing to ``ema``.

        Early on the half-life is 5 % of the images seen, so that the average forgets the random start
        (Karras et al., EDM, NeurIPS 2022, appendix F.2).
        """
        return float(0.5 ** (self.batch / max(1e-8, min(self.ema, 0.05 * (images_seen + self.batch)))))
