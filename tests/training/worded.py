"""A run of a network that knows no tokens: texts by number, blocks of which a base may be frozen, any objective.

Run as a script, it trains in a process of its own, or in one of several:
``python worded.py <folder> <name -> [mechanism, settings, network, stop, origin] as JSON>``, where ``stop`` is the
count of images after whose checkpoint the run is cut, and ``origin`` the run from whose checkpoint it goes on.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from small_training import GROUPS, Stopped, data

from equigen.checkpoints import save_checkpoint
from equigen.diffusion import objective_of
from equigen.equity import build_mechanism
from equigen.seeds import torch_generator
from equigen.training import LatentDataset, Trainer, TrainSettings

WIDTH, TEXTS = 16, 12


class Prompts:
    """Conditions whose numbers are of texts; 0 is the empty one, which stands for a dropped prompt."""

    def __init__(self, ids, dropped=0.2):
        self.ids, self.dropped = ids, dropped

    def draw(self, rows, seed, seen, generator):
        away = torch.rand(len(rows), 1, generator=torch_generator(seed, "prompts", seen)) < self.dropped
        return torch.where(away, 0, self.ids[rows])

    def complete(self, rows):
        return self.ids[rows]


class Block(torch.nn.Module):
    """x + base(x) + up(down(x)) + text: what LoRA makes of a layer."""

    def __init__(self):
        super().__init__()
        self.base, self.text = torch.nn.Conv2d(WIDTH, WIDTH, 3, padding=1), torch.nn.Linear(WIDTH, WIDTH)
        self.down, self.up = torch.nn.Conv2d(WIDTH, 3, 1, bias=False), torch.nn.Conv2d(3, WIDTH, 1, bias=False)

    def forward(self, x, words):
        y = torch.nn.functional.silu(x)
        return x + self.base(y) + self.up(self.down(y)) + self.text(words)[:, :, None, None]


class PromptNetwork(torch.nn.Module):
    """module(noisy, time, ids): ``part`` is what is trained: all, or the low-rank pairs ("pairs")."""

    def __init__(self, part="all", dropout=0.0, norm=False, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.register_buffer("table", torch.randn(TEXTS, WIDTH), persistent=False)
            self.first, self.time = torch.nn.Conv2d(4, WIDTH, 3, padding=1), torch.nn.Linear(2, WIDTH)
            self.blocks = torch.nn.ModuleList([Block(), Block()])
            self.norm = torch.nn.BatchNorm2d(WIDTH) if norm else torch.nn.Identity()
            self.dropout, self.last = torch.nn.Dropout(dropout), torch.nn.Conv2d(WIDTH, 4, 3, padding=1)
        if part == "pairs":
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(".down." in name or ".up." in name)

    def forward(self, noisy, time, ids):
        moment = time.float()[:, None] / 1000
        words = self.table[ids[:, 0]] + self.time(torch.cat([moment, moment.square()], 1))
        x = self.first(noisy)
        for block in self.blocks:
            x = block(x, words)
        return self.last(torch.nn.functional.silu(self.dropout(self.norm(x))))


class Store:
    """Latents that are not a tensor: rows are fetched, and counted."""

    def __init__(self, values):
        self.values, self.shape, self.fetched = values, tuple(values.shape), 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        assert rows.dtype == torch.int64 and rows.ndim == 1
        self.fetched += len(rows)
        return self.values[rows].clone()


def sides(stored=False):
    made = []
    for n, seed in ((40, 0), (20, 1)):
        given = data(n, seed)
        texts = 1 + (given.index[:, :1] + 1) * 4 + given.index[:, 1:] + 1
        latents = Store(given.latents) if stored else given.latents
        made.append(LatentDataset(latents, texts % TEXTS, given.index, GROUPS))
    return made


def settings(images=64, **changes):
    common = {
        "size": 32, "images": images, "batch": 8, "warmup": 16, "ema": 32, "learning_rate": 1e-2, "probe_images": 8,
        "probe_every": 24, "log_every": 16, "checkpoint_every": 24, "seed": 3,
    }  # fmt: skip
    return TrainSettings(**{**common, **changes})


SCHEDULERS = {
    "epsilon": lambda: DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "v": lambda: DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
    "flow": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def trainer(checkpoint, mechanism, chosen, *, predicts="epsilon", stored=False, held_out=True, module=None, **network):
    own = dict(mechanism)
    rule = build_mechanism(own.pop("mechanism"), GROUPS, chosen.seed, **own)
    train, held = sides(stored)
    hooks = {name: network.pop(name) for name in ("save_snapshot", "sample_grids", "accelerator") if name in network}
    module = PromptNetwork(**network) if module is None else module
    objective = objective_of(SCHEDULERS[predicts]())
    return Trainer(module, objective, Prompts(train.ids), train, held if held_out else None, rule, chosen,
                   Path(checkpoint), "this run", **hooks)  # fmt: skip


def run_until(run, stop=None):
    """Run; cut off just after the checkpoint of ``stop`` images, where that is given."""
    plain = run.save

    def save():
        plain()
        if run.images_seen == stop:
            raise Stopped

    run.save = save
    with contextlib.suppress(Stopped):
        run.run(show=False)
    assert stop is None or run.images_seen == stop


def pictures(run):
    """What the network makes of fixed noise, as every process has to compute it where weights are sharded."""
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    made = run.network(noise, torch.tensor([500, 500]), torch.tensor([[1], [2]]))
    images = (60 * made[:, :3] + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return {"one": images[0], "two": images[1]}


def kept(run, weights):
    """A snapshot."""
    save_checkpoint(run.checkpoint.with_name(f"kept-{run.images_seen}.safetensors"), weights, {})


def main(folder, runs):
    """One run after another; the first process writes the weights that each gives out, all write what they know."""
    torch.set_num_threads(1)
    for name, (mechanism, changes, network, stop, origin) in json.loads(runs).items():
        place, accelerator = Path(folder) / name / "c.safetensors", Accelerator()
        if origin and accelerator.is_main_process:
            place.parent.mkdir()
            shutil.copy(Path(folder) / origin / "c.safetensors", place)
        accelerator.wait_for_everyone()
        run = trainer(place, mechanism, settings(**changes), save_snapshot=kept, sample_grids=pictures, **network)
        begun = run.images_seen
        run_until(run, stop)
        weights, rank = run.weights(), run.accelerator.process_index
        held = sum(parameter.to_local().numel() if hasattr(parameter, "to_local") else parameter.numel()
                   for parameter in run.network.parameters())  # fmt: skip
        told = {"world": run.accelerator.num_processes, "held": held, "rows": run.history.rows, "begun": begun}
        save_checkpoint(place.with_name(f"given-{rank}.safetensors"), weights if rank == 0 else {}, told)


if __name__ == "__main__":
    main(*sys.argv[1:])
