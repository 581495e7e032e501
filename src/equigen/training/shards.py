"""Tensors that may be sharded over processes (FSDP): gathering, sharding and copying, the same for ordinary tensors."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_module(module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """Shard every weight over the processes, in place (PyTorch's ``fully_shard``; Zhao et al. 2023).

    The elements of the outermost ModuleLists (blocks of a U-Net, layers of a transformer) are gathered one at a time,
    when they compute, and so are the weights outside of them. A module on the CPU moves to the devices block by block,
    so that none has to hold all of it. Uses torch alone: accelerate's plugin would fall back to DDP on CPUs without a
    warning.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in outer_blocks(module):
        fully_shard(block, mesh=mesh)
    # without resharding, weights outside of blocks would still be there, and old, in the next pass without gradients
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return module


def outer_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the elements of the outermost ModuleLists within a module, in order."""
    modules: list[torch.nn.Module] = []
    for child in module.children():
        modules += list(child) if isinstance(child, torch.nn.ModuleList) else outer_blocks(child)
    return modules


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a tensor; it shares the tensor's memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full value of a small tensor (a norm, say) on every process; every process has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on_first(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full value of a sharded tensor on the CPU of the first process; any other tensor is returned as it is.

    Every process has to call this, and those after the first get an empty tensor, to save memory.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    value = tensor.full_tensor()
    return value.cpu() if tensor.device_mesh.get_rank() == 0 else value.new_empty(0)


def shard_like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Shard a full value as ``tensor`` is; one of another shape (a count of steps) is returned as it is."""
    if not isinstance(tensor, DTensor) or value.shape != tensor.shape:
        return value
    # every process has the value, so that nothing need be sent
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Overwrite this process's shard of a tensor from a full value."""
    local_tensor(tensor).copy_(local_tensor(shard_like(tensor, value)))
