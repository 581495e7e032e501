"""Words of plans and calibrations that settings files hold. It loads no heavy library."""

from __future__ import annotations

from typing import Literal

Policy = Literal["match", "balanced", "uniform", "complement", "counterfactual"]
"""Which conditions the images of a plan have; see ``plan``."""

Reference = Literal["images", "reconstructions"]
"""What a generator is measured against: real images, or their reconstructions by the autoencoder."""
