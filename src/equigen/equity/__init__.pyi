"""Equity mechanisms: from the losses of a batch and its groups to the weights of its images. Arrays only."""

from . import running_means as running_means
from .base import BaseMechanism as BaseMechanism
from .base import CensusMechanism as CensusMechanism
from .bayes import Proposal as Proposal
from .bayes import propose as propose
from .checks import check_sampling_weights as check_sampling_weights
from .checks import check_weights as check_weights
from .descriptions import describe_mechanisms as describe_mechanisms
from .groups import Groups as Groups
from .interface import Mechanism as Mechanism
from .interface import State as State
from .mechanism_file import COPY as COPY
from .mechanism_file import file_classes as file_classes
from .monitor import GroupLosses as GroupLosses
from .monitor import group_losses as group_losses
from .monitor import timestep_strata as timestep_strata
from .registry import build_mechanism as build_mechanism
from .registry import check_mechanism_name as check_mechanism_name
from .registry import is_mechanism_file as is_mechanism_file
from .registry import mechanism_copy as mechanism_copy
from .registry import mechanism_identity as mechanism_identity
from .registry import mechanism_label as mechanism_label
from .registry import mechanism_names as mechanism_names
from .registry import mechanism_reference as mechanism_reference
from .registry import mechanism_source as mechanism_source
