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

    size: int = Field(
        64,
        ge=16,
        description="side of the images in pixels, a multiple of the autoencoder's factor (8 for the shipped one)",
    )
    base: str | None = Field(
        None, description="text-to-image pipeline to fine-tune: a diffusers folder, or OWNER/NAME of the hub"
    )
    tune: Tune | None = Field(
        None, description="which weights of a text-to-image pipeline are trained; by default lora of a base, else unet"
    )
    rank: int = Field(16, ge=1, description="rank of LoRA")
    alpha: float | None = Field(None, gt=0, description="scale of LoRA; by default the rank")
    text_encoder: str | None = Field(
        None, description="without a base: prompts in place of tokens, by `minilm` or a transformers folder"
    )
    preset: Preset = Field(
        "small", description="network from scratch: tiny (2 M parameters), small (6 M) or base (53 M)"
    )
    prediction: Prediction = Field("v_prediction", description="what a network from scratch predicts")
    images: int = Field(200_000, ge=1, description="length of training, in images seen")
    batch: int = Field(64, ge=1, description="images in a global batch, over all processes")
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="optimizer; adamw8bit needs bitsandbytes, and a quarter of the memory"
    )
    learning_rate: float = Field(6e-4, gt=0, description="learning rate at its peak")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="course of the learning rate; cosine falls to a tenth of the peak"
    )
    warmup: int = Field(5_000, ge=0, description="images of linear warm-up of the learning rate")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")
    ema: float = Field(
        20_000, ge=0, description="half-life of the averaged weights, in images seen; 0 keeps no average"
    )
    drop_all: float = Field(0.1, ge=0, le=1, description="chance that the whole condition of an image is dropped")
    drop_one: float = Field(0.05, ge=0, le=1, description="chance that a single token of a condition is dropped")
    noise_offset: float = Field(
        0, ge=0, description="standard deviation of a constant in each channel of the noise; 0.1 is a lot"
    )
    input_perturbation: float = Field(
        0, ge=0, description="gamma of additional noise in the input, which the network is not asked to predict"
    )
    timestep_sampling: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="distribution of noise levels; logit_normal is usual for flow matching"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="precision of the arithmetic; auto: bf16 on a GPU, fp32 on a CPU; fp16 scales the loss"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice: far less memory, a third more work"
    )
    sharding: Literal["none", "full"] = Field(
        "none",
        description="full: weights and optimizer state are spread over processes (FSDP, under torchrun)",
    )
    probe_images: int = Field(
        128, ge=8, description="images of each fixed probe, one of the training and one of the validation split"
    )
    probe_every: int = Field(20_000, ge=1, description="images seen between two measurements of the probes")
    log_every: int = Field(2_000, ge=1, description="images seen over which training losses are averaged")
    checkpoint_every: int = Field(20_000, ge=1, description="images seen between two checkpoints")
    snapshot_every: int = Field(
        0, ge=0, description="images seen between two generators that are kept; 0 keeps the last alone"
    )
    best: Literal["none", "overall", "worst_group"] = Field(
        "none",
        description="weights that are kept: the last, or those of the lowest validation loss, overall or worst group",
    )
    grid_every: int = Field(0, ge=0, description="images seen between two grids of samples of each group; 0 makes none")
    trackers: Tracker | None = Field(
        None,
        description="experiment tracker; auto: TensorBoard if installed; by default auto with prompts, else none",
    )
    start: str | None = Field(None, description="folder of a generator from whose weights training starts")
    min_snr: float = Field(
        0, ge=0, description="gamma of min-SNR loss weights (Hang et al., ICCV 2023), 5 is usual; 0: none"
    )
    store: Literal["memory", "disk"] = Field(
        "memory", description="latents in memory, or read from the disk as needed, for cohorts larger than memory"
    )
    accumulate: int = Field(1, ge=1, description="parts in which a batch passes the network, to save memory")
    mechanism: Annotated[str, BeforeValidator(mechanism_reference)] = Field(
        "perturbation",
        description="equity mechanism: a name of `equigen list mechanisms`, or FILE.py:CLASS, whose code is run",
    )
    mechanism_settings: dict[str, Any] = Field({}, description="settings of the mechanism, by name")
    seed: int = Field(0, description="training seed")

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
