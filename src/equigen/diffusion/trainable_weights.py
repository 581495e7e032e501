"""The weights of a pretrained pipeline that are trained: all, some, or LoRA (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from equigen.diffusion.choices import TrainableWeights
from equigen.diffusion.pretrained import Pretrained
from equigen.diffusion.pretrained.saving import RECORD, versions
from equigen.errors import InputError, Problem
from equigen.files import read_json, replace_file, write_json
from equigen.model_files import nonfinite_weight
from equigen.seeds import torch_generator

ADAPTER = "default"
SETTINGS = ("base", "rank", "alpha", "targets", "text_encoder", "seed")  # what the record keeps under ``lora``
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # CLIP's attention
DIFFUSERS_FILE, PEFT_FILE = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"


def add_lora(
    pretrained: Pretrained,
    rank: int = 16,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    text_encoder: bool = False,
    seed: int = 0,
) -> None:
    """Add LoRA layers to the network, and to CLIP text encoders with ``text_encoder``; only they are trained.

    A layer W x becomes W x + (alpha / rank) B A x, with A [rank, in] drawn from ``seed`` and B [out, rank] zero: at
    first nothing changes. LoRA weights are float32 whatever the base is in.

    Args:
        pretrained: changed in place.
        rank: of the product B A.
        alpha: None takes ``rank``, so that the product counts once.
        targets: ends of the names of the network's layers; None takes the family's attention layers.
        text_encoder: also adapt the text encoders.
        seed: of A.

    Raises:
        InputError: a rank or alpha that is not positive, layers that are not there, LoRA layers that are there already,
            or text encoders that the plain pipeline could not load LoRA weights for.

    """
    layers = tuple(targets) if targets is not None else pretrained.family.lora_targets
    scale = float(rank if alpha is None else alpha)
    problems = []
    if pretrained.lora is not None:
        problems.append(Problem("there are LoRA layers already", "open the base again"))
    if rank < 1 or not scale > 0:
        problems.append(Problem(f"rank {rank}, alpha {scale:g}", "use a rank of at least 1 and an alpha above 0"))
    names = [name for name, _ in pretrained.network.named_modules()]
    for layer in layers:
        if not any(name == layer or name.endswith("." + layer) for name in names):
            problems.append(Problem(f"the network has no layer '{layer}'", "correct 'targets'"))
    kinds = [type(pretrained.encoders[name]).__name__ for name in pretrained.family.text_trained]
    if text_encoder and not (pretrained.family.plain_lora and all(kind.startswith("CLIP") for kind in kinds)):
        mend = "adapt the network alone: plain diffusers loads LoRA weights into CLIP text encoders only"
        problems.append(Problem(f"its text encoder is a {kinds[0]}", mend))
    if problems:
        raise InputError("LoRA layers cannot be added.", problems)
    record = {"base": pretrained.hash, "rank": rank, "alpha": scale, "targets": list(layers)}
    _freeze(_all_weights(pretrained))
    _inject(pretrained.network, rank, scale, layers, torch_generator(seed, "lora-network"))
    if text_encoder:
        for name in pretrained.family.text_trained:
            _inject(pretrained.encoders[name], rank, scale, TEXT_TARGETS, torch_generator(seed, f"lora-{name}"))
        _freeze(pretrained.family.unused_weights(pretrained.encoders))
    pretrained.set_lora({**record, "text_encoder": text_encoder, "seed": seed})


def save_lora(pretrained: Pretrained, folder: str | Path, record: Mapping[str, Any] | None = None) -> Path:
    """Write the LoRA weights in the format of the plain pipeline's ``load_lora_weights(folder)``.

    Rank and alpha are in the file. PixArt's plain pipeline has no ``load_lora_weights``: there the folder is one that
    ``peft.PeftModel.from_pretrained(pipeline.transformer, folder)`` takes. ``equigen.json`` beside the weights has what
    ``Pretrained.save`` writes and ``lora``: the settings and the base's hash; ``kind`` is lora, and ``base`` where the
    base lay. ``record`` is added. Raises InputError where there are no LoRA weights.
    """
    if pretrained.lora is None:
        raise InputError("There are no LoRA weights.", [Problem("add_lora was not used", "use Pretrained.save")])
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    file = out / (DIFFUSERS_FILE if pretrained.family.plain_lora else PEFT_FILE)
    if pretrained.family.plain_lora:
        _write(file, _prefixed(pretrained, _lora_state), _prefixed(pretrained, _lora_config))
    else:
        _write(file, {f"base_model.model.{name}": value for name, value in _lora_state(pretrained.network).items()})
        write_json(out / "adapter_config.json", _lora_config(pretrained.network))
    provenance = {**pretrained.provenance("lora", pretrained.source), "lora": pretrained.lora, **(record or {})}
    write_json(out / RECORD, {**provenance, "versions": versions()})
    return out


def load_lora(pretrained: Pretrained, folder: str | Path) -> None:
    """Load LoRA weights that ``save_lora`` wrote into the base that they were trained on, all weights frozen.

    Raises:
        InputError: no such files, damaged ones, or another base.

    """
    source = Path(folder)
    file = source / (DIFFUSERS_FILE if pretrained.family.plain_lora else PEFT_FILE)
    lacking = [path for path in (file, source / RECORD) if not path.is_file()]
    if lacking:
        mend = "give a folder that save_lora wrote"
        raise InputError("There are no LoRA weights.", [Problem("is not there", mend, file=str(lacking[0]))])
    try:
        record, values = read_json(source / RECORD), load_file(file)
        odd = nonfinite_weight(values)
        if odd is not None:
            raise ValueError(odd)
        lora = {name: record["lora"][name] for name in SETTINGS}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        mend = "copy the folder again"
        raise InputError("The LoRA weights are damaged.", [Problem(str(error), mend, file=str(file))]) from error
    if lora["base"] != pretrained.hash:
        mend = f"open '{record.get('base')}' as it was when they were trained"
        problem = Problem("belongs to another base", mend, file=str(file))
        raise InputError("The LoRA weights do not fit this pipeline.", [problem])
    add_lora(pretrained, lora["rank"], lora["alpha"], lora["targets"], lora["text_encoder"], lora["seed"])
    for name, adapted in _lora_networks(pretrained).items():
        start = f"{name}." if pretrained.family.plain_lora else "base_model.model."
        state = {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
        unmatched = set(_lora_state(adapted)) ^ set(state)
        if unmatched:
            problem = Problem(f"{len(unmatched)} weights are missing or unknown", "copy it again", file=str(file))
            raise InputError("The LoRA weights are damaged.", [problem])
        set_peft_model_state_dict(adapted, state, adapter_name=ADAPTER)
    _freeze(_all_weights(pretrained))
    pretrained.set_lora(lora)


def _inject(network: Any, rank: int, alpha: float, layers: Sequence[str], draws: torch.Generator) -> None:
    """Add LoRA layers to a network, with A uniform in +- 1 / sqrt(inputs) from ``draws``: the same on any device."""
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": list(layers)}
    config = LoraConfig(**settings, init_lora_weights=True)
    with torch.random.fork_rng(devices=[network.device] if network.device.type == "cuda" else []):
        inject_adapter_in_model(config, network, adapter_name=ADAPTER)  # it draws from the global generator
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
        if "lora_A" in name:
            uniform = 2 * torch.rand(weight.shape, generator=draws) - 1
            weight.data.copy_(uniform / math.sqrt(weight[0].numel()))


def _lora_networks(pretrained: Pretrained) -> dict[str, Any]:
    """Return the networks that have LoRA layers, by their name in the pipeline."""
    networks = {pretrained.family.network: pretrained.network, **pretrained.encoders}
    return {
        name: network for name, network in networks.items() if ADAPTER in (getattr(network, "peft_config", None) or {})
    }


def _all_weights(pretrained: Pretrained) -> list[torch.nn.Parameter]:
    parts = [pretrained.network, *pretrained.encoders.values()]
    return [weight for network in parts for weight in network.parameters()]


def _freeze(weights: Sequence[torch.nn.Parameter]) -> None:
    for weight in weights:
        weight.requires_grad_(False)


def _lora_state(network: Any) -> dict[str, Any]:
    """Return a network's LoRA weights by layer."""
    return dict(get_peft_model_state_dict(network, adapter_name=ADAPTER))


def _lora_config(network: Any) -> dict[str, Any]:
    """Return a network's LoRA configuration as JSON: sets become sorted lists."""
    config: dict[str, Any] = network.peft_config[ADAPTER].to_dict()
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}


def _prefixed(pretrained: Pretrained, function: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return the entries of every network with LoRA layers as ``<network>.<name>``, as in diffusers' files."""
    parts = _lora_networks(pretrained).items()
    return {f"{component}.{name}": value for component, network in parts for name, value in function(network).items()}


def _write(file: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = None) -> None:
    """Write one safetensors file, with the LoRA configuration in its header where diffusers looks for it."""
    header = {"format": "pt"}
    if config is not None:
        header["lora_adapter_metadata"] = json.dumps(config, indent=2, sort_keys=True)
    with replace_file(file) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, header)


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
