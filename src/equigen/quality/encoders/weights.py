"""Weights files of users: reading without pickle, strict loading, and hashes of weights."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # the exception alone: torch raises it for objects other than tensors

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from equigen.errors import InputError, Problem
from equigen.model_files import nonfinite_weight

OFFLINE = "efficientnet-lite0 needs no file and no network"
LISTED = 5  # keys named in one message
COUNTER = "num_batches_tracked"  # a counter of batch norm that evaluation does not use

State = dict[str, torch.Tensor]


def read_state(path: str | Path, encoder: str) -> State:
    """Return the tensors by name of a ``.safetensors`` file, or of a ``.pt``, ``.pth`` or ``.bin`` file of tensors.

    Only tensors are unpickled (``weights_only``). A mapping under ``state_dict`` is unwrapped, and the prefix
    ``module.`` of a distributed run is removed.

    Raises:
        InputError: a missing or damaged file, a TorchScript archive, other objects than tensors; the file is named.

    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise weights_error(encoder, "the weights file is not there", "give the path of a file that you have", file)
    if file.suffix == ".safetensors":
        try:
            state: State = load_file(file)
        except SafetensorError as error:
            raise weights_error(encoder, f"not a whole safetensors file: {error}", "copy it again", file) from error
        return _check_tensors(state, encoder, file)
    names: list[str] = []
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise weights_error(
            encoder,
            "a TorchScript archive holds code, which is never run",
            "save its state_dict, best as .safetensors",
            file,
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise weights_error(
            encoder,
            "damaged, or it holds other objects than tensors, which are never unpickled",
            "copy it again, or save its state_dict as .safetensors",
            file,
        ) from error
    return _check_tensors(content, encoder, file)


def _check_tensors(content: object, encoder: str, file: Path) -> State:
    """Return the tensors of a state dict without prefixes; InputError where it holds other objects."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise weights_error(encoder, "it does not hold tensors by name", "save the state_dict of the network", file)
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_strict(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    encoder: str,
    path: str | Path,
    file_name: Callable[[str], str] = str,
) -> None:
    """Load a state dict of which all keys and shapes must fit; counters of batch norm may be missing.

    ``file_name`` converts a name of the network to that of the file.

    Raises:
        InputError: missing or unknown keys, or keys of another shape, which it names, or a weight that is NaN or
            infinite.

    """
    expected = network.state_dict()
    names = {file_name(key): key for key in expected}
    misshapen = [
        f"{name} {list(state[name].shape)} for {list(expected[key].shape)}"
        for name, key in names.items()
        if name in state and state[name].shape != expected[key].shape
    ]
    missing = [name for name in names if name not in state and not name.endswith(COUNTER)]
    unknown = [name for name in state if name not in names]
    differences = []
    for kind, keys in (("missing", missing), ("of another shape", misshapen), ("unknown", unknown)):
        more = f", and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
        differences += [f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{more}"] if keys else []
    if differences:
        raise weights_error(
            encoder,
            f"these are not its weights; keys {'; '.join(differences)}",
            "give the whole state_dict of this network",
            path,
        )
    fault = nonfinite_weight(state)
    if fault is not None:
        raise weights_error(encoder, fault, "copy the file again", path)
    network.load_state_dict({key: state.get(name, expected[key]) for name, key in names.items()})


def state_hash(state: Iterable[tuple[str, torch.Tensor]], *texts: str) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of tensors in the order of their names, and of ``texts``.

    Equal tensors have the same hash whatever their file. Counters of batch norm are left out.
    """
    digest = hashlib.sha256("\0".join(texts).encode())
    for name, tensor in sorted(state, key=lambda item: item[0]):
        if name.endswith(COUNTER):
            continue
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_error(encoder: str, message: str, mend: str, file: str | Path) -> InputError:
    """Return the error of an encoder without usable weights: file or id, remedy, and an encoder that works offline."""
    problem = Problem(message, f"{mend}; {OFFLINE}", file=str(file))
    return InputError(f"The encoder {encoder} has no weights that can be used.", [problem])
