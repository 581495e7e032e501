"""A request for a proposal of Bayesian optimisation, as values and as one line of JSON without rounding."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from equigen.equity.bayes import NEWEST, Proposal, propose


@dataclass(frozen=True)
class ProposalRequest:
    """The arguments of ``bayes.propose``: points [n, K], their rewards [n] and times [n], and the current time."""

    points: Tensor
    rewards: Tensor
    times: Tensor
    time: float
    beta: float
    seed: int

    def compute(self) -> Proposal:
        """Compute the proposal in this process."""
        return propose(
            self.points, self.rewards, times=self.times, current_time=self.time, beta=self.beta, seed=self.seed
        )

    def to_line(self) -> str:
        """Return the JSON of the arguments that ``propose`` uses; floats are read back exactly."""
        tensors = {"points": self.points, "rewards": self.rewards, "times": self.times}
        lists = {name: tensor[-NEWEST:].double().tolist() for name, tensor in tensors.items()}
        return json.dumps({**lists, "now": self.time, "beta": self.beta, "seed": self.seed})

    @classmethod
    def from_line(cls, line: str) -> ProposalRequest:
        """Return the request that ``to_line`` wrote, in float64."""
        values = json.loads(line)
        points, rewards, times = (
            torch.tensor(values[name], dtype=torch.float64) for name in ("points", "rewards", "times")
        )
        return cls(points, rewards, times, values["now"], values["beta"], values["seed"])


def answer_to_line(proposal: Proposal) -> str:
    """Return a proposal as one line of JSON."""
    return json.dumps({"point": proposal.point.tolist(), "fallback": proposal.fallback})


def answer_from_line(line: str) -> Proposal:
    """Return the proposal that ``answer_to_line`` wrote."""
    values = json.loads(line)
    return Proposal(torch.tensor(values["point"], dtype=torch.float64), values["fallback"])
