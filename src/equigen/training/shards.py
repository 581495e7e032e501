"""Weights that several processes hold in parts (FSDP), beside those that each holds whole: one way to treat both."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """Let each process keep one part of every weight, in place (PyTorch's ``fully_shard``; Zhao et al. 2023).

    The elements of the outermost ModuleLists (blocks of a U-Net, layers of a transformer) are gathered one at a time,
    when they compute, and so is what lies outside of them. A module that lies on the CPU goes to the processors that
    compute block by block, so that no one has to hold all of it. Plain torch: accelerate's plugin would fall back to
    DDP on CPUs without a word.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    # without resharding, weights outside of blocks would still be there, and old, in the next pass without gradients
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return module


def blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Elements of the outermost ModuleLists within a module, in order."""
    found: list[torch.nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, torch.nn.ModuleList) else blocks(child)
    return found


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def everywhere(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a small tensor (a norm, say) on every process; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that processes hold in parts, on the CPU of the first; any other tensor is given back.

    Every process has to ask for it, and those after the first get an empty one: no memory would hold all wholes.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    value = tensor.full_tensor()
    return value.cpu() if tensor.device_mesh.get_rank() == 0 else value.new_empty(0)


def like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole value, held as ``tensor`` is; one of another shape (a count of steps) is left as it is."""
    if not isinstance(tensor, DTensor) or value.shape != tensor.shape:
        return value
    # every process has the value, so that nothing need be sent
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)


@torch.no_grad()
def put(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Overwrite a tensor by a whole value, this process's part of it."""
    local(tensor).copy_(local(like(tensor, value)))
