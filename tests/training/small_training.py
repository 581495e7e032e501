"""A training run that takes milliseconds a step: made-up latents of two attributes and a small network of one level.

Run as a script, it trains in a process of its own, or in one of several:
``python small_training.py <folder> <images> <name -> [mechanism, settings] as JSON> [<kill after step>]``.
"""

import json
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from equigen.checkpoints import add_prefix, save_checkpoint
from equigen.diffusion import PRESETS, Denoiser, TokenConditions, build_tokens, build_unet, noise_schedule, objective_of
from equigen.equity import GroupLosses, Groups, build_mechanism
from equigen.training import LatentDataset, Trainer, TrainSettings, loop

SMALL = {"channels": (32,), "tokens": 16, "head": 16, "layers": 1}
GROUPS = Groups((("sex", ("female", "male")), ("age", ("young", "middle", "old"))))
NONE = {"mechanism": "none"}
CORRECTED = {"mechanism": "perturbation", "window_images": 16, "minimum": 2}
RELEASED = {"mechanism": "perturbation", "variant": "released", "time_window": 4}
OTHERS = ("random", "reweight", "balanced", "group_dro", "minmax_noise")
ALL = {"none": NONE, "corrected": CORRECTED, "released": RELEASED, **{name: {"mechanism": name} for name in OTHERS}}
ALL["minmax_noise"]["minimum"] = 1
TOGETHER = {"accumulate": 2, "min_snr": 5.0}


def data(n, seed):
    """Latents whose channel means are set by the groups, which the condition names; a few groups are unknown."""
    draws = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(0, 2, (n,), generator=draws), torch.randint(0, 3, (n,), generator=draws)], 1)
    latents = 0.3 * torch.randn(n, 4, 4, 4, generator=draws) + index[:, :1, None, None] - 0.5 * index[:, 1:, None, None]
    index[:3, 0] = -1
    return LatentDataset(latents, torch.where(index < 0, 1, index + 2), index, GROUPS)


def settings(images=64, **changes):
    common = {
        "size": 32, "preset": "tiny", "images": images, "batch": 8, "warmup": 16, "ema": 32, "learning_rate": 2e-3,
        "probe_images": 8, "probe_every": 24, "log_every": 16, "checkpoint_every": 24, "seed": 3,
    }  # fmt: skip
    return TrainSettings(**{**common, **changes})


def trainer(checkpoint, mechanism=NONE, chosen=None, train=None, held_out=True, key="this run", save_snapshot=None):
    chosen = chosen or settings()
    with patch.dict(PRESETS, tiny=SMALL):
        denoiser = Denoiser(build_unet("tiny", 4, 4, chosen.seed), build_tokens([4, 5], "tiny", chosen.seed))
    own = dict(mechanism)
    rule = build_mechanism(own.pop("mechanism"), GROUPS, chosen.seed, **own)
    train = data(40, 0) if train is None else train
    sides = TokenConditions(train.ids, chosen.drop_all, chosen.drop_one), train, data(20, 1) if held_out else None
    arguments = denoiser, objective_of(noise_schedule()), *sides, rule, chosen, Path(checkpoint), key
    return Trainer(*arguments, save_snapshot=save_snapshot)


class Stopped(Exception):
    """An injected interruption."""


def stopping(step, action=None):
    """A patch under which pass number ``step`` (from 0) through the network raises Stopped, or does ``action``.

    A step is one pass, unless gradients are accumulated.
    """
    made, plain = [], loop.loss_per_image

    def loss_per_image(*inputs):
        if len(made) == step:
            if action is None:
                raise Stopped
            action()
        made.append(step)
        return plain(*inputs)

    return patch.object(loop, "loss_per_image", loss_per_image)


def kept(run, weights):
    """Leave a file for each snapshot, which fails where there is one: by another process, say."""
    (run.checkpoint.parent / f"{run.checkpoint.stem}-kept-{run.images_seen}").touch(exist_ok=False)


def doubled(measure):
    """Losses of a probe as a processor with a mind of its own might measure them."""

    def measured(*inputs):
        found = measure(*inputs)
        factors = torch.linspace(1, 2, len(found.table))[:, None]
        return GroupLosses(found.groups, found.table * factors, found.counts, 2 * found.strata)

    return measured


def main(folder, images, mechanisms, kill=None):
    """One run after another; write the weights and the mechanism's state of this process."""
    torch.set_num_threads(1)
    step = -1 if kill is None else int(kill)
    for name, (mechanism, changes) in json.loads(mechanisms).items():
        place = Path(folder) / f"{name}.safetensors"
        run = trainer(place, mechanism, settings(int(images), **changes), save_snapshot=kept)
        if name == "unlike" and run.accelerator.process_index == 1:
            for watch in run.probes.values():
                watch.measure = doubled(watch.measure)
        with stopping(step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            run.run(show=False)
        place = Path(folder) / f"{name}-{run.accelerator.process_index}.safetensors"
        average, state = add_prefix("average", run.average.state_dict()), run.mechanism.state_dict()
        remembered = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        tensors = {**run.network.state_dict(), **average, **add_prefix("mechanism", remembered)}
        told = {key: value for key, value in state.items() if key not in remembered}
        save_checkpoint(place, tensors, {
            "world": run.accelerator.num_processes, "rows": run.history.rows, "mechanism": told,
        })  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
