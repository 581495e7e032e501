"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

from . import running_means as running_means
from .base import CountedRule as CountedRule
from .base import Rule as Rule
from .bayes import Proposal as Proposal
from .bayes import propose as propose
from .checks import checked_sampling as checked_sampling
from .checks import checked_weights as checked_weights
from .groups import Groups as Groups
from .interface import Mechanism as Mechanism
from .interface import State as State
from .monitor import GroupLosses as GroupLosses
from .monitor import group_losses as group_losses
from .monitor import timestep_strata as timestep_strata
from .registry import build as build
from .registry import names as names
