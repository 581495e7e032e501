"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

from equigen.equity import moving
from equigen.equity.bayes import Proposal, propose
from equigen.equity.groups import Groups
from equigen.equity.interface import Mechanism, State
from equigen.equity.monitor import GroupLosses, group_losses, timestep_strata
from equigen.equity.registry import build, names
from equigen.equity.returned import checked_sampling, checked_weights
from equigen.equity.rule import CountedRule, Rule

__all__ = [
    "CountedRule", "GroupLosses", "Groups", "Mechanism", "Proposal", "Rule", "State", "build",
    "checked_sampling", "checked_weights", "group_losses", "moving", "names", "propose", "timestep_strata",
]
