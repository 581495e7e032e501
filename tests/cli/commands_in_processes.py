"""Commands in two processes each, started as torchrun starts them. Run by test_cli_processes.

torchrun's own launcher forks the processes from this one, so that what they import is imported once.
``python commands_in_processes.py FOLDER COMMANDS.json``: name -> words. What a process of ``name`` prints goes to
``FOLDER/name-RANK.out`` and ``.err``; in those called ``lost`` the second has a fault that the first has not.
"""

import json
import os
import sys
import time
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import equigen.diffusion
import equigen.synthesis
import equigen.training
from equigen.cli.commands import main
from equigen.errors import InputError


def run(folder: str, name: str, words: list[str]) -> None:
    """One process."""
    rank = os.environ["RANK"]
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(f"{folder}/{name}-{rank}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    if name == "lost":
        equigen.training.train = fails if rank == "1" else waits
    sys.argv = ["equigen", *words]
    main()


def fails(*_args, **_rest):
    raise InputError("This process alone has a fault.")


def waits(*_args, **_rest):
    time.sleep(300)


def start(folder: str, name: str, words: list[str]) -> dict[str, int]:
    """Exit status of each process that did not come to a good end."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id=f"{name}-{os.getpid()}", max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    try:
        elastic_launch(config, run)(folder, name, words)
    except ChildFailedError as error:
        return {str(rank): failure.exitcode for rank, failure in error.failures.items()}
    return {}


if __name__ == "__main__":
    place, file = sys.argv[1:]
    commands = json.loads(Path(file).read_text())
    ended = {name: start(place, name, words) for name, words in commands.items()}
    (Path(place) / "ended.json").write_text(json.dumps(ended))
