"""Bayesian optimisation in a background process: a request is submitted, and its proposal fetched when it is due."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import warnings
import weakref
from collections.abc import Sequence

from equigen.equity.bayes import Proposal
from equigen.equity.request import ProposalRequest, answer_from_line

COMMAND = (sys.executable, "-P", "-m", "equigen.equity.worker")
PATIENCE = 300.0  # seconds without an answer after which a worker counts as dead; an answer takes about one


class Proposer:
    """Client of the worker process: ``ask`` submits a request, ``answer`` waits for its proposal.

    The proposal equals that of ``bayes.propose`` in this process: same code, one thread, floats passed exactly. Where
    the worker cannot be started, dies, or does not answer for ``patience`` seconds, the proposal is computed in this
    process, with a warning; the next request starts a new worker.

    The worker is a plain subprocess (multiprocessing would need a main guard in scripts of users, and a worker of loky
    outlives a training that is killed), takes about 300 MB
    and no GPU, and sleeps between requests. It ends with this object, with the program, and when the program is
    killed, since its input ends then.
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = PATIENCE) -> None:
        self.command, self.patience = tuple(command), patience
        self.worker: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[[subprocess.Popen[str]], Proposer] | None = None
        self._asked: str | None = None  # the request that the worker computes

    def start(self) -> None:
        """Start the worker where there is none; it imports BoTorch meanwhile, which takes seconds."""
        if self.worker is not None:
            return
        try:
            self.worker = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the training, which ends the worker itself
            )
        except OSError:
            return  # ``answer`` says so
        self._end = weakref.finalize(self, _end, self.worker)

    def ask(self, question: ProposalRequest) -> None:
        """Submit a request to the worker; the same request again does nothing."""
        line = question.to_line()
        if line == self._asked:
            return
        died = self.worker is not None and self.worker.poll() is not None
        if died or self._asked is not None:  # the earlier request is obsolete
            self.close()
        self.start()
        if self.worker is None or self.worker.stdin is None:
            return
        try:
            self.worker.stdin.write(line + "\n")
            self.worker.stdin.flush()
        except OSError:
            return  # it died; ``answer`` says so
        self._asked = line

    def answer(self, question: ProposalRequest) -> Proposal:
        """Return the proposal of a request, submitted before or not."""
        self.ask(question)
        try:
            proposal = self._receive()
        except (OSError, ValueError) as error:  # ValueError: half a line, of a worker that died while writing
            self.close()
            warnings.warn(
                f"The process that proposes sigma beside the training has failed ({error}). This proposal is computed "
                "within a training step, which takes longer and gives the same.",
                RuntimeWarning,
                stacklevel=2,
            )
            return question.compute()
        self._asked = None
        return proposal

    def _receive(self) -> Proposal:
        if self.worker is None or self.worker.stdout is None or self._asked is None:
            raise OSError("it could not be started or asked")
        # At most one answer is under way, so none can hide in the buffer while the pipe is empty.
        if not select.select([self.worker.stdout], [], [], self.patience)[0]:
            raise OSError(f"no answer for {self.patience:g} seconds")
        line = self.worker.stdout.readline()
        if not line:
            raise OSError(f"it ended with exit status {self.worker.wait()}")
        return answer_from_line(line)

    def close(self) -> None:
        """End the worker; a later request starts a new one."""
        if self._end is not None:
            self._end()
        self.worker, self._end, self._asked = None, None, None


def _end(worker: subprocess.Popen[str]) -> None:
    """Kill the worker, close its pipes and wait for its end."""
    worker.kill()
    for pipe in (worker.stdout, worker.stdin):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent input has no reader any more
                pipe.close()
    worker.wait()
