"""Bayesian optimisation beside a training: asked at once, answered by a process of its own, fetched when due."""

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
from equigen.equity.request import Question, answer_from_line

COMMAND = (sys.executable, "-P", "-m", "equigen.equity.worker")
PATIENCE = 300.0  # seconds without an answer after which a worker counts as dead; an answer takes about one


class Proposer:
    """``ask`` a question and go on; ``answer`` gives the proposal, and waits where it is not there yet.

    The answer is the very one that ``bayes.propose`` gives here: same code, one thread, floats passed exactly. Where
    the worker cannot be started, dies, or is silent for ``patience`` seconds, the proposal is computed here, with a
    warning; the next question starts a new worker.

    The worker is a plain subprocess (scripts of users have no main guard, which multiprocessing would need), takes
    about 300 MB and no GPU, and sleeps between questions. It ends with this object, with the program, and when the
    program is killed, since its input ends then.
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = PATIENCE) -> None:
        self.command, self.patience = tuple(command), patience
        self.worker: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[[subprocess.Popen[str]], Proposer] | None = None
        self._asked: str | None = None  # the one question that the worker has

    def start(self) -> None:
        """Start the worker where there is none; it imports BoTorch meanwhile, which takes seconds."""
        if self.worker is not None:
            return
        try:
            self.worker = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                encoding="utf-8", env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the training, which ends the worker itself
            )
        except OSError:
            return  # ``answer`` says so
        self._end = weakref.finalize(self, _end, self.worker)

    def ask(self, question: Question) -> None:
        """Have it worked out beside; the same question again is no question."""
        line = question.to_line()
        if line == self._asked:
            return
        died = self.worker is not None and self.worker.poll() is not None
        if died or self._asked is not None:  # nobody wants the other answer any more
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

    def answer(self, question: Question) -> Proposal:
        """The proposal for a question, asked before or not."""
        self.ask(question)
        try:
            found = self._receive()
        except (OSError, ValueError) as error:  # ValueError: half a line, of a worker that died while writing
            self.close()
            warnings.warn(
                f"The process that proposes sigma beside the training has failed ({error}). This proposal is computed "
                "within a training step, which takes longer and gives the same.", RuntimeWarning, stacklevel=2,
            )
            return question.answer()
        self._asked = None
        return found

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
        """End the worker; a later question starts a new one."""
        if self._end is not None:
            self._end()
        self.worker, self._end, self._asked = None, None, None


def _end(worker: subprocess.Popen[str]) -> None:
    """Kill it and wait: no orphan, no zombie, no open pipe."""
    worker.kill()
    for pipe in (worker.stdout, worker.stdin):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not sent yet has no reader any more
                pipe.close()
    worker.wait()
