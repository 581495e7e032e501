"""Plans, the images made from them, their screening and pairs, and the guidance that each group gets."""

from equigen.synthesis.calibrate import Calibration, calibrate
from equigen.synthesis.generate import SyntheticSet, generate
from equigen.synthesis.guidance import Guidance, apply_guidance, load_calibration
from equigen.synthesis.pair_sets import Pairs, read_pairs
from equigen.synthesis.pairs import PairComparison, compare_pairs
from equigen.synthesis.plan import allot, match_plan, plan
from equigen.synthesis.plan_file import read_plan, write_plan
from equigen.synthesis.screen import Screening, screen

__all__ = [
    "Calibration",
    "Guidance",
    "PairComparison",
    "Pairs",
    "Screening",
    "SyntheticSet",
    "allot",
    "apply_guidance",
    "calibrate",
    "compare_pairs",
    "generate",
    "load_calibration",
    "match_plan",
    "plan",
    "read_pairs",
    "read_plan",
    "screen",
    "write_plan",
]
