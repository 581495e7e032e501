"""One question to Bayesian optimisation, as values and as a line of JSON that loses no digit."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from equigen.equity.bayes import NEWEST, Proposal, propose


@dataclass(frozen=True)
class Question:
    """The arguments of ``bayes.propose``: what was tried [n, K], its rewards [n], when [n], the moment asked about."""

    points: Tensor
    rewards: Tensor
    times: Tensor
    now: float
    beta: float
    seed: int

    def answer(self) -> Proposal:
        """Work it out here and now."""
        return propose(self.points, self.rewards, times=self.times, now=self.now, beta=self.beta, seed=self.seed)

    def to_line(self) -> str:
        """JSON of what ``propose`` looks at; Python writes a float so that the same float is read."""
        tensors = {"points": self.points, "rewards": self.rewards, "times": self.times}
        lists = {name: tensor[-NEWEST:].double().tolist() for name, tensor in tensors.items()}
        return json.dumps({**lists, "now": self.now, "beta": self.beta, "seed": self.seed})

    @classmethod
    def from_line(cls, line: str) -> Question:
        """The question that ``to_line`` wrote, in float64."""
        values = json.loads(line)
        points, rewards, times = (
            torch.tensor(values[name], dtype=torch.float64) for name in ("points", "rewards", "times")
        )
        return cls(points, rewards, times, values["now"], values["beta"], values["seed"])


def answer_to_line(proposal: Proposal) -> str:
    """A proposal as one line of JSON."""
    return json.dumps({"point": proposal.point.tolist(), "fallback": proposal.fallback})


def answer_from_line(line: str) -> Proposal:
    """The proposal that ``answer_to_line`` wrote."""
    values = json.loads(line)
    return Proposal(torch.tensor(values["point"], dtype=torch.float64), values["fallback"])
