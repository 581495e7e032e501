"""Plans, and the images made from them."""

from equigen.synthesis.generate import SyntheticSet, generate
from equigen.synthesis.plan import allot, plan

__all__ = ["SyntheticSet", "allot", "generate", "plan"]
