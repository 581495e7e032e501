"""Which weights of a pretrained pipeline are trained, and at what cost in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from equigen.diffusion.lora import add_lora
from equigen.diffusion.pretrained import Pretrained
from equigen.errors import InputError, Problem

What = Literal["unet", "unet+text", "lora", "lora+text"]


def trainable(
    pretrained: Pretrained,
    what: What = "unet",
    *,
    rank: int = 16,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> int:
    """Choose what is trained, everything else being frozen; how many weights that is.

    Args:
        pretrained: changed in place.
        what: ``unet``: the whole network, be it a U-Net or a transformer; ``lora``: LoRA layers in it (``rank``,
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
    if what not in get_args(What):
        problem = Problem(f"'{what}' is unknown", f"use one of {', '.join(get_args(What))}")
        raise InputError("There is no such way to train.", [problem])
    network, _, text = what.partition("+")
    if network == "lora":
        add_lora(pretrained, rank, alpha, targets, bool(text), seed)
    else:
        _whole(pretrained, bool(text))
    parts = [pretrained.network, *pretrained.encoders.values()]
    return sum(weight.numel() for part in parts for weight in part.parameters() if weight.requires_grad)


def enable_gradient_checkpointing(pretrained: Pretrained) -> None:
    """Compute activations again on the way back instead of keeping them: less memory for about a third more time.

    Gradients stay the same. It takes effect while the module is in training mode.
    """
    pretrained.network.enable_gradient_checkpointing()
    for encoder in pretrained.encoders.values():
        if any(weight.requires_grad for weight in encoder.parameters()):
            # the name changed within the versions of transformers that are allowed
            enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
            enable()


def _whole(pretrained: Pretrained, text: bool) -> None:
    """Train the network, and with ``text`` the encoders that the family trains."""
    if pretrained.lora is not None:
        raise InputError("This pipeline has LoRA layers.", [Problem("add_lora was used", "open the base again")])
    encoders = {name: pretrained.encoders[name] for name in pretrained.family.text_trained} if text else {}
    parts = [pretrained.network, *encoders.values()]
    if any(weight.dtype != torch.float32 for part in parts for weight in part.parameters()):
        mend = "open it in float32 (half precision for computing is the training's own setting), or train LoRA"
        raise InputError("These weights cannot be trained in full.", [Problem(f"they are {pretrained.dtype}", mend)])
    for part in [pretrained.network, *pretrained.encoders.values()]:
        part.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    for weight in pretrained.family.idle(encoders) if encoders else []:
        weight.requires_grad_(False)
