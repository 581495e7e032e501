"""The audit of predictions: metrics for every group, intervals, null bands and paired differences."""

from .audit_predictions import Audit as Audit
from .audit_predictions import audit as audit
from .metrics import accuracy as accuracy
from .metrics import auc as auc
from .metrics import balanced_accuracy as balanced_accuracy
from .metrics import brier as brier
from .metrics import deodds as deodds
from .metrics import dpd as dpd
from .metrics import ece as ece
from .metrics import measure as measure
from .metrics import pr_auc as pr_auc
from .metrics import sensitivity as sensitivity
from .metrics import specificity as specificity
from .settings import DEFAULT_BASELINE as DEFAULT_BASELINE
from .settings import MIN_CASES as MIN_CASES
from .settings import AuditSettings as AuditSettings
from .settings import FairnessSettings as FairnessSettings
from .thresholds import Threshold as Threshold
from .thresholds import choose_threshold as choose_threshold
