"""Plans, the images made from them, and the guidance that each group gets."""

from equigen.synthesis.calibrate import Calibration, calibrate
from equigen.synthesis.generate import SyntheticSet, generate
from equigen.synthesis.guidance import Guidance, apply_guidance, load_calibration
from equigen.synthesis.plan import allot, match_plan, plan
from equigen.synthesis.screen import Screening, screen

__all__ = [
    "Calibration",
    "Guidance",
    "Screening",
    "SyntheticSet",
    "allot",
    "apply_guidance",
    "calibrate",
    "generate",
    "load_calibration",
    "match_plan",
    "plan",
    "screen",
]
