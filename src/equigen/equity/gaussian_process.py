"""The maximiser of the upper confidence bound of a Gaussian process given rewards, by BoTorch.

BoTorch builds on GPyTorch, of which the likelihood is taken: the two are one package in two parts.
Importing this module imports BoTorch (a third of a second); ``bayes`` does so when it is first needed.
"""

from __future__ import annotations

import torch
from botorch.acquisition import UpperConfidenceBound
from botorch.exceptions import (
    BadInitialCandidatesWarning,
    InputDataWarning,
    ModelFittingError,
    OptimizationWarning,
)
from botorch.exceptions.errors import OptimizationGradientError
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError  # type: ignore[import-untyped]
from linear_operator.utils.warnings import NumericalWarning  # type: ignore[import-untyped]
from torch import Tensor

RESTARTS, RAW_SAMPLES = 5, 20
FAILURES: tuple[type[Exception], ...] = (
    ModelFittingError,  # no start of the fit converged
    OptimizationGradientError,  # a gradient of the likelihood or of UCB is NaN
    NotPSDError,  # the covariance is not positive definite, jitter or not
    NanError,
    torch.linalg.LinAlgError,  # type: ignore[attr-defined]
)
KNOWN_WARNINGS: tuple[type[Warning], ...] = (
    OptimizationWarning,  # one start of several did not converge: BoTorch tries the next, or raises
    BadInitialCandidatesWarning,  # UCB is flat where rewards are all equal: any point will do
    InputDataWarning,  # rewards that are all equal, or a single one, have no spread to standardise
    NumericalWarning,  # jitter was added to the covariance; too little of it raises NotPSDError
)


def maximise(x: Tensor, y: Tensor, bounds: Tensor, beta: float, fixed: dict[int, float] | None) -> Tensor:
    """Return the maximiser [d] over a box of mu + sqrt(beta) s of a Gaussian process given (x [n, d], y [n]).

    ``bounds`` [2, d] is the box; ``fixed`` holds some inputs at a value. Inputs are normalised by the box,
    not by the range of the points seen: a random walk fills little of it. Rewards are standardised. All is
    float64.
    """
    model = SingleTaskGP(
        x,
        y.unsqueeze(-1),
        input_transform=Normalize(x.shape[1], bounds=bounds),
        outcome_transform=Standardize(1),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    bound = UpperConfidenceBound(model, beta=beta)
    candidates, _ = optimize_acqf(
        bound,
        bounds=bounds,
        q=1,
        num_restarts=RESTARTS,
        raw_samples=RAW_SAMPLES,
        fixed_features=fixed,
    )
    best: Tensor = candidates[0].detach()
    return best
