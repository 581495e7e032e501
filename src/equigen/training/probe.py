"""The fixed probe: the same images, noise and noise levels every time, so that only the network changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from equigen.diffusion import STEPS, loss_per_image
from equigen.equity import GroupLosses, Groups, group_losses
from equigen.seeds import numpy_generator, torch_generator

STRATA = 4  # noise levels at which each image of a probe is measured


class Probe:
    """Group losses on a fixed sample of images, with the groups as evenly represented as the data allow.

    ``latents`` [N, C, h, w] normalised (or a store), ``ids`` [N, F], ``index`` [N, A]. About ``count`` images are drawn
    in turn from each group of each attribute, without replacement (see ``choose_probe_rows``). Each is measured at one
    timestep in each of STRATA equal strata of [0, steps), with noise of its own, without the noise options of training.
    """

    def __init__(
        self,
        latents: Any,
        ids: torch.Tensor,
        index: torch.Tensor,
        groups: Groups,
        count: int,
        seed: int,
        name: str,
        steps: int = STEPS,
    ) -> None:
        rows = choose_probe_rows(index, groups, count, seed, name)
        draws = torch_generator(seed, f"probe-{name}")
        self.groups, self.index = groups, index[rows]
        self.latents, self.ids = latents[rows].repeat(STRATA, 1, 1, 1), ids[rows].repeat(STRATA, 1)
        self.noise = torch.randn(self.latents.shape, generator=draws)
        ends = [steps * stratum // STRATA for stratum in range(STRATA + 1)]
        self.timesteps = torch.cat(
            [torch.randint(low, high, (len(rows),), generator=draws) for low, high in pairwise(ends)]
        )

    @torch.no_grad()
    def measure(
        self, denoiser: Any, objective: Any, device: torch.device, batch: int, accelerator: Accelerator | None = None
    ) -> GroupLosses:
        """Return the mean denoising loss of each group, over images and strata, ``batch`` of them at a time.

        With an ``accelerator`` of several processes each measures its share, and all get the result.
        """
        processes, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
        count = len(self.latents)
        share = -(-count // processes)
        rows = (torch.arange(share) + rank * share) % count  # the last process makes up to its share by repeating
        parts = []
        for low in range(0, share, batch):
            batch_rows = rows[low : low + batch]
            inputs = (value[batch_rows].to(device) for value in (self.latents, self.noise, self.timesteps, self.ids))
            parts.append(loss_per_image(denoiser, objective, *inputs))
        losses = torch.cat(parts) if accelerator is None else accelerator.gather(torch.cat(parts))
        return group_losses(losses[:count].cpu().view(STRATA, -1).T, self.index, self.groups)


def choose_probe_rows(index: torch.Tensor, groups: Groups, count: int, seed: int, name: str) -> torch.Tensor:
    """Return the sorted rows of the probe, drawn from each group in turn in a random order, about ``count`` of them.

    The last round over the groups is completed, so there may be one image more for each group. Images without any
    known group are used only where there are no others.
    """
    order = numpy_generator(seed, f"probe-rows-{name}").permutation(len(index))
    shuffled = index.numpy()[order]
    queues = [
        iter(order[shuffled[:, column] == level])
        for column, (_, levels) in enumerate(groups.names)
        for level in range(len(levels))
    ] or [iter(order)]
    selection: dict[int, None] = {}
    while queues and len(selection) < count:
        for queue in list(queues):
            new_row = next((int(row) for row in queue if int(row) not in selection), None)
            if new_row is None:
                queues.remove(queue)
            else:
                selection[new_row] = None
    if not selection:  # no image has a known group
        selection = dict.fromkeys(int(row) for row in order[:count])
    return torch.from_numpy(np.array(sorted(selection), dtype=np.int64))
