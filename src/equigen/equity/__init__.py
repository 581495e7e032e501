"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

from equigen.equity.bayes import Proposal, propose
from equigen.equity.groups import Groups
from equigen.equity.interface import Mechanism, State
from equigen.equity.monitor import GroupLosses, group_losses, timestep_strata
from equigen.equity.registry import build, names

__all__ = [
    "GroupLosses", "Groups", "Mechanism", "Proposal", "State", "build", "group_losses", "names", "propose",
    "timestep_strata",
]
