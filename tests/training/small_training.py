"""A training run that takes milliseconds a step: made-up latents of two attributes and a small network of one level.

Run as a script, it trains in a process of its own, or in one of several:
``python small_training.py <folder> <images> <mechanisms and their settings as JSON> [<kill after step>]``.
"""

import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from equigen.checkpoints import prefixed, save_checkpoint
from equigen.diffusion import PRESETS, Denoiser, build_tokens, build_unet, noise_schedule
from equigen.equity import Groups, build
from equigen.training import Data, Trainer, TrainSettings, loop

SMALL = {"channels": (32,), "tokens": 16, "head": 16, "layers": 1}
GROUPS = Groups((("sex", ("female", "male")), ("age", ("young", "middle", "old"))))
NONE = {"mechanism": "none"}
CORRECTED = {"mechanism": "perturbation", "window_images": 16, "minimum": 2}
RELEASED = {"mechanism": "perturbation", "variant": "released", "time_window": 4}


def data(n, seed):
    """Latents whose channel means are set by the groups, which the condition names; a few groups are unknown."""
    draws = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(0, 2, (n,), generator=draws), torch.randint(0, 3, (n,), generator=draws)], 1)
    latents = 0.3 * torch.randn(n, 4, 4, 4, generator=draws) + index[:, :1, None, None] - 0.5 * index[:, 1:, None, None]
    index[:3, 0] = -1
    return Data(latents, torch.where(index < 0, 1, index + 2), index, GROUPS)


def settings(images=64, **changes):
    common = {
        "size": 32, "preset": "tiny", "images": images, "batch": 8, "warmup": 16, "ema": 32, "learning_rate": 2e-3,
        "probe_images": 8, "probe_every": 24, "log_every": 16, "checkpoint_every": 24, "seed": 3,
    }  # fmt: skip
    return TrainSettings(**{**common, **changes})


def trainer(checkpoint, mechanism=NONE, chosen=None, train=None, held_out=True, key="this run"):
    chosen = chosen or settings()
    with patch.dict(PRESETS, tiny=SMALL):
        denoiser = Denoiser(build_unet("tiny", 4, 4, chosen.seed), build_tokens([4, 5], "tiny", chosen.seed))
    own = dict(mechanism)
    rule = build(own.pop("mechanism"), GROUPS, chosen.seed, **own)
    sides = data(40, 0) if train is None else train, data(20, 1) if held_out else None
    return Trainer(denoiser, noise_schedule(), *sides, rule, chosen, Path(checkpoint), key)


class Stopped(Exception):
    """An injected interruption."""


def stopping(step, action=None):
    """A patch under which the training step ``step`` (from 0) raises Stopped, or does ``action``."""
    made, plain = [], loop.loss_per_image

    def loss_per_image(*inputs):
        if len(made) == step:
            if action is None:
                raise Stopped
            action()
        made.append(step)
        return plain(*inputs)

    return patch.object(loop, "loss_per_image", loss_per_image)


def main(folder, images, mechanisms, kill=None):
    """One run of each mechanism after another; write the weights and the mechanism's state of this process."""
    torch.set_num_threads(1)
    step = -1 if kill is None else int(kill)
    for name, mechanism in json.loads(mechanisms).items():
        run = trainer(Path(folder) / f"{name}.safetensors", mechanism, settings(int(images)))
        if name == "unlike" and run.accelerator.process_index == 1:
            for watch in run.probes.values():
                watch.noise = watch.noise.flip(0)
        with stopping(step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            run.run(show=False)
        place = Path(folder) / f"{name}-{run.accelerator.process_index}.safetensors"
        average = prefixed("average", run.average.state_dict())
        tensors = {**run.network.state_dict(), **average, "sigma": run.mechanism.sigma}
        save_checkpoint(place, tensors, {"world": run.accelerator.num_processes, "rows": run.history.rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
