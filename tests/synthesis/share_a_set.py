"""Sets that several processes share, started as torchrun starts them. Run by test_generate_processes.

torchrun's own launcher forks the processes from this one, so that what they import is imported once.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist
from painted import Painter, asks
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from equigen.cohort import Cohort
from equigen.errors import InputError
from equigen.synthesis import generate, plan

module = sys.modules["equigen.synthesis.generation"]


def share(place: str, cohort: str, generator: str, kill: int) -> None:
    """One process: its share of two sets. ``kill``: images after which the last one ends itself; 0 for none."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a process of its own, not the launcher's
    real, made = module.write_png, []

    def write(path, image):
        made.append(path.name)
        if kill and len(made) > kill and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, image)

    module.write_png = write
    rows = plan(Cohort.read(cohort, check_images=False, show_progress=False), "match", 38, seed=1, steps=2)
    out = generate(generator, rows, Path(place) / "set", chunk=4, show=False)
    told = {"world": dist.get_world_size(), "made": list(made), "whole": len(out.frame)}
    made.clear()
    generate(generator, rows, Path(place) / "set", chunk=4, show=False)
    told["again"] = len(made)
    told["painted"] = len(generate(Painter(), asks(38), Path(place) / "painted", chunk=4, show=False).frame)
    try:
        generate(Painter(), asks(3, guidance=-1.0), Path(place) / "bad", show=False)
    except InputError as error:
        told["refused"] = str(error)
    (Path(place) / f"rank-{dist.get_rank()}.json").write_text(json.dumps(told))


def start(processes: int, *arguments: str | int) -> bool:
    """Whether all of so many processes came to a good end."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id=str(os.getpid()), max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    try:
        elastic_launch(config, share)(*arguments)
    except ChildFailedError:
        return False
    return True


if __name__ == "__main__":
    folder, *inputs = sys.argv[1:]
    places = {name: f"{folder}/{name}" for name in ("two", "three", "cut")}
    for place in places.values():
        Path(place).mkdir()
    ended = {"two": start(2, places["two"], *inputs, 0), "three": start(3, places["three"], *inputs, 0)}
    ended["killed"] = start(3, places["cut"], *inputs, 6)
    ended["left"] = sorted(path.relative_to(places["cut"]).as_posix() for path in Path(places["cut"]).rglob("*.*"))
    ended["gone on"] = start(2, places["cut"], *inputs, 0)
    (Path(folder) / "ended.json").write_text(json.dumps(ended))
