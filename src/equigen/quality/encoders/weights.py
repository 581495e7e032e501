"""Weights that a user brings: read without pickle, hashed, and loaded whole or refused with what is missing."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # only its name: torch raises it when it refuses what is no tensor

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from equigen.errors import InputError, Problem
from equigen.model_files import weight_fault

OFFLINE = "efficientnet-lite0 needs no file and no network"
SHOWN = 5  # keys named in one message
COUNTER = "num_batches_tracked"  # a counter of batch norm that plays no part in evaluation

State = dict[str, torch.Tensor]


def read_state(path: str | Path, encoder: str) -> State:
    """Tensors by name from a ``.safetensors`` file, or from a ``.pt``, ``.pth`` or ``.bin`` file of tensors alone.

    Nothing is unpickled but tensors (``weights_only``). A mapping under ``state_dict`` is unwrapped, and the
    prefix ``module.`` of a distributed run taken off.

    Raises:
        InputError: no file, a damaged one, a TorchScript archive, other objects than tensors; the file is named.

    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise unusable(encoder, "the weights file is not there", "give the path of a file that you have", file)
    if file.suffix == ".safetensors":
        try:
            state: State = load_file(file)
        except SafetensorError as error:
            raise unusable(encoder, f"not a whole safetensors file: {error}", "copy it again", file) from error
        return _tensors(state, encoder, file)
    if _is_torchscript(file):
        raise unusable(encoder, "a TorchScript archive holds code, which is never run",
                       "save its state_dict, best as .safetensors", file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise unusable(encoder, "damaged, or it holds other objects than tensors, which are never unpickled",
                       "copy it again, or save its state_dict as .safetensors", file) from error
    return _tensors(found, encoder, file)


def _tensors(found: object, encoder: str, file: Path) -> State:
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise unusable(encoder, "it does not hold tensors by name", "save the state_dict of the network", file)
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())


def load_strict(
    network: nn.Module, state: Mapping[str, torch.Tensor], encoder: str, path: str | Path,
    known: Callable[[str], str] = str,
) -> None:
    """Load a state dict of which every key and shape must fit; only counters of batch norm may be absent.

    ``known`` turns a name of the network into the one that the file has for it.

    Raises:
        InputError: with the missing, the unknown and the misshapen keys of the file, or a weight that is NaN or
            infinite.

    """
    own = network.state_dict()
    names = {known(key): key for key in own}
    misshapen = [f"{name} {list(state[name].shape)} for {list(own[key].shape)}"
                 for name, key in names.items() if name in state and state[name].shape != own[key].shape]
    missing = [name for name in names if name not in state and not name.endswith(COUNTER)]
    unknown = [name for name in state if name not in names]
    told = [f"{len(keys)} {kind}: {_some(keys)}"
            for kind, keys in (("missing", missing), ("of another shape", misshapen), ("unknown", unknown)) if keys]
    if told:
        raise unusable(encoder, f"these are not its weights; keys {'; '.join(told)}",
                       "give the whole state_dict of this network", path)
    odd = weight_fault(state)
    if odd is not None:
        raise unusable(encoder, odd, "copy the file again", path)
    network.load_state_dict({key: state.get(name, own[key]) for name, key in names.items()})


def _some(keys: list[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def state_hash(state: Iterable[tuple[str, torch.Tensor]], *texts: str) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors in the order of their names, and over ``texts``.

    The same for equal tensors whatever file held them. Counters of batch norm are left out.
    """
    digest = hashlib.sha256("\0".join(texts).encode())
    for name, tensor in sorted(state, key=lambda item: item[0]):
        if name.endswith(COUNTER):
            continue
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unusable(encoder: str, message: str, mend: str, file: str | Path) -> InputError:
    """The error of an encoder whose weights cannot be had: the file or id, the mend, and what works offline."""
    problem = Problem(message, f"{mend}; {OFFLINE}", file=str(file))
    return InputError(f"The encoder {encoder} has no weights that can be used.", [problem])
