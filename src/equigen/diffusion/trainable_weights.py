"""Selection of the weights of a pretrained pipeline that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from equigen.diffusion.choices import TrainableWeights
from equigen.diffusion.lora import add_lora
from equigen.diffusion.pretrained import Pretrained
from equigen.errors import InputError, Problem


def set_trainable(
    pretrained: Pretrained,
    weights: TrainableWeights = "unet",
    *,
    rank: int = 16,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> int:
    """Set the weights that are trained and freeze all others; returns the number of trained weights.

    Args:
        pretrained: changed in place.
        weights: ``unet``: the whole network, be it a U-Net or a transformer; ``lora``: LoRA layers in it (``rank``,
            ``alpha``, ``targets`` and ``seed`` as in ``add_lora``); ``+text``: the text encoders too. A text encoder's
            weights that the network does not depend on stay frozen.
        rank: of LoRA.
        alpha: of LoRA.
        targets: of LoRA.
        seed: of LoRA's first weights.

    Raises:
        InputError: another word, weights in half precision that are to be trained in full, or LoRA that cannot be
            added.

    """
    if weights not in get_args(TrainableWeights):
        problem = Problem(f"'{weights}' is unknown", f"use one of {', '.join(get_args(TrainableWeights))}")
        raise InputError("There is no such way to train.", [problem])
    network, _, text = weights.partition("+")
    if network == "lora":
        add_lora(pretrained, rank, alpha, targets, bool(text), seed)
    else:
        _train_in_full(pretrained, bool(text))
    parts = [pretrained.network, *pretrained.encoders.values()]
    return sum(weight.numel() for network_ in parts for weight in network_.parameters() if weight.requires_grad)


def enable_gradient_checkpointing(pretrained: Pretrained) -> None:
    """Recompute activations in the backward pass: less memory for about a third more time.

    The gradients are the same. It takes effect while the module is in training mode.
    """
    pretrained.network.enable_gradient_checkpointing()
    for encoder in pretrained.encoders.values():
        if any(weight.requires_grad for weight in encoder.parameters()):
            # the name changed within the versions of transformers that are allowed
            enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
            enable()


def _train_in_full(pretrained: Pretrained, text: bool) -> None:
    """Make the network trainable, and with ``text`` the encoders that the family trains."""
    if pretrained.lora is not None:
        raise InputError("This pipeline has LoRA layers.", [Problem("add_lora was used", "open the base again")])
    encoders = {name: pretrained.encoders[name] for name in pretrained.family.text_trained} if text else {}
    parts = [pretrained.network, *encoders.values()]
    if any(weight.dtype != torch.float32 for network in parts for weight in network.parameters()):
        mend = "open it in float32 (half precision for computing is the training's own setting), or train LoRA"
        raise InputError("These weights cannot be trained in full.", [Problem(f"they are {pretrained.dtype}", mend)])
    for network in [pretrained.network, *pretrained.encoders.values()]:
        network.requires_grad_(False)
    for network in parts:
        network.requires_grad_(True)
    for weight in pretrained.family.unused_weights(encoders) if encoders else []:
        weight.requires_grad_(False)
