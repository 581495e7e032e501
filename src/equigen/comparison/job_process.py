"""The process of one job of a comparison: ``python -m equigen.comparison.job_process JOB.json``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from equigen.comparison.runners.local import PARENT
from equigen.errors import EquigenError
from equigen.exit_status import as_input_error, end_on_sigterm, print_error


def main(file: str) -> int:
    """Do all steps that are not done; return the exit status: 0, 2 for an error of the user, 143 if terminated."""
    end_on_sigterm()
    end_with_parent()
    try:
        run_steps(Path(file))
    except KeyboardInterrupt:
        return 143
    except EquigenError as error:
        print_error(error)
        return 2
    except Exception as error:
        input_error = as_input_error(error)
        if input_error is None:
            raise
        print_error(input_error)
        return 2
    return 0


def run_steps(file: Path) -> None:
    """Do the steps of a job file, in order."""
    import torch

    from equigen.cohort import Cohort
    from equigen.comparison.context import JobContext
    from equigen.comparison.job_file import read_job
    from equigen.comparison.steps import run_step

    job = read_job(file)
    torch.set_num_threads(job.threads)
    out = Path(job.out)
    context = JobContext(out, Cohort.load(out / "cohort", job.root), job.autoencoder, job.size)
    for step in job.steps:
        run_step(context, step)


def end_with_parent(every: float = 1.0) -> None:
    """Watch the process that started this one, and end this process when that one has ended or was killed.

    Otherwise the same job could be started again, and two processes would write its files.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
