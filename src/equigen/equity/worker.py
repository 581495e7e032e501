"""The background process that computes proposals during training: ``python -m equigen.equity.worker``.

Reads one request per line and writes one proposal per line. It ends with its input, so a training that is killed
leaves no process behind. ``equigen.equity.proposer`` starts it.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

import torch

from equigen.equity.request import ProposalRequest, answer_to_line


def warm_up() -> None:
    """Import BoTorch and use it once: the first proposal of a process takes several times as long as the next."""
    two = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ProposalRequest(two[:, None], two, two, time=1.0, beta=0.1, seed=0).compute()


def serve(questions: TextIO, answers: TextIO) -> None:
    """Compute the proposal of each line."""
    for line in questions:
        print(answer_to_line(ProposalRequest.from_line(line).compute()), file=answers, flush=True)


def main() -> None:
    """Serve standard input; output that libraries print goes to standard error, since the pipe takes proposals only."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warm_up()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
