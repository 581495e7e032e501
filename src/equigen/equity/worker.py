"""The process beside a training that works out proposals: ``python -m equigen.equity.worker``.

Reads a question a line and writes an answer a line, until its input ends; it ends too then, so a training that is
killed leaves none behind. See ``equigen.equity.proposer`` for the other side.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

import torch

from equigen.equity.request import Question, answer_to_line


def warm_up() -> None:
    """Import BoTorch and use it once: the first proposal of a process takes several times as long as the next."""
    two = torch.tensor([0.0, 1.0], dtype=torch.float64)
    Question(two[:, None], two, two, now=1.0, beta=0.1, seed=0).answer()


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer line by line."""
    for line in questions:
        print(answer_to_line(Question.from_line(line).answer()), file=answers, flush=True)


def main() -> None:
    """Nothing but answers may be written to the pipe, so whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warm_up()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
