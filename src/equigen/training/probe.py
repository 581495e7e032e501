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
    """Group losses on a sample that holds every group as evenly as the data allow.

    ``latents`` [N, C, h, w] normalised (or a store), ``ids`` [N, F], ``groups`` [N, A]. About ``count`` images are
    taken, in turn from each group of each attribute, without replacement (see ``choose``). Each is measured at one
    timestep in each of STRATA equal strata of [0, steps), with plain noise of its own, whatever training does to noise.
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
        rows = choose(index, groups, count, seed, name)
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
        """Mean denoising loss of each group, over images and strata, ``batch`` of them at a time.

        With an ``accelerator`` of several processes each measures its share, and all get the whole.
        """
        processes, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
        count = len(self.latents)
        share = -(-count // processes)
        rows = (torch.arange(share) + rank * share) % count  # the last process makes up to its share by repeating
        parts = []
        for low in range(0, share, batch):
            part = rows[low : low + batch]
            inputs = (self.latents[part], self.noise[part], self.timesteps[part], self.ids[part])
            parts.append(loss_per_image(denoiser, objective, *(value.to(device) for value in inputs)))
        losses = torch.cat(parts) if accelerator is None else accelerator.gather(torch.cat(parts))
        return group_losses(losses[:count].cpu().view(STRATA, -1).T, self.index, self.groups)


def choose(index: torch.Tensor, groups: Groups, count: int, seed: int, name: str) -> torch.Tensor:
    """Rows of the probe: each group in turn gives its next image in a random order, until ``count`` are chosen.

    The last round is finished, so that no group is behind another: there may be one image more for each group.
    Images without any known group are taken only where there are no others.
    """
    order = numpy_generator(seed, f"probe-rows-{name}").permutation(len(index))
    shuffled = index.numpy()[order]
    queues = [
        iter(order[shuffled[:, column] == level])
        for column, (_, levels) in enumerate(groups.names)
        for level in range(len(levels))
    ] or [iter(order)]
    chosen: dict[int, None] = {}
    while queues and len(chosen) < count:
        for queue in list(queues):
            fresh = next((int(row) for row in queue if int(row) not in chosen), None)
            if fresh is None:
                queues.remove(queue)
            else:
                chosen[fresh] = None
    if not chosen:  # no image has a known group
        chosen = dict.fromkeys(int(row) for row in order[:count])
    return torch.from_numpy(np.array(sorted(chosen), dtype=np.int64))
