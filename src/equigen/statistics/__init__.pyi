"""Statistics on arrays: resampling by patient, intervals, null bands, Holm, gaps and equity-scaled values."""

from .equity import equity_scaled as equity_scaled
from .equity import equity_scaled_rows as equity_scaled_rows
from .equity import gap as gap
from .intervals import interval_error as interval_error
from .intervals import percentile_interval as percentile_interval
from .intervals import share_interval as share_interval
from .intervals import wilson_interval as wilson_interval
from .means import defined_mean as defined_mean
from .means import quotient as quotient
from .means import weighted_mean as weighted_mean
from .ranking import WEIGHTS_IN_MEMORY as WEIGHTS_IN_MEMORY
from .ranking import Ranking as Ranking
from .ranking import weighted_auc as weighted_auc
from .resampling import Multiplicities as Multiplicities
from .resampling import draw_multiplicities as draw_multiplicities
from .resampling import group_permutations as group_permutations
from .resampling import patient_bootstrap as patient_bootstrap
from .resampling import patient_codes as patient_codes
from .resampling import split_halves as split_halves
from .resampling import subsample as subsample
from .seeds import SeedMean as SeedMean
from .seeds import mean_over_seeds as mean_over_seeds
from .testing import holm as holm
from .testing import p_value as p_value
from .testing import two_sided_p_value as two_sided_p_value
