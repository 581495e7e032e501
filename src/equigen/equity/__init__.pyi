"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

from . import running_means as running_means
from .base import BaseMechanism as BaseMechanism
from .base import CensusMechanism as CensusMechanism
from .bayes import Proposal as Proposal
from .bayes import propose as propose
from .checks import check_sampling_weights as check_sampling_weights
from .checks import check_weights as check_weights
from .groups import Groups as Groups
from .interface import Mechanism as Mechanism
from .interface import State as State
from .monitor import GroupLosses as GroupLosses
from .monitor import group_losses as group_losses
from .monitor import timestep_strata as timestep_strata
from .registry import build_mechanism as build_mechanism
from .registry import mechanism_names as mechanism_names
