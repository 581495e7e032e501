"""Groups of two attributes, a made-up training set, and made-up probes."""

import itertools

import pytest
import torch

from equigen.equity import Groups, build_mechanism, group_losses

NAMES = (("sex", ("female", "male")), ("age", ("young", "middle", "old")))
MECHANISMS = {
    "none": ("none", {}),
    "released": ("perturbation", {"variant": "released"}),
    "corrected": ("perturbation", {"variant": "corrected"}),
    **{name: (name, {}) for name in ("random", "reweight", "balanced", "group_dro", "minmax_noise")},
}


def population(groups):
    """A training set that has every cell, unknown groups included, 1 to 7 times."""
    cells = list(itertools.product(*(range(-1, len(levels)) for _, levels in groups.names)))
    counts = [1 + 3 * place % 7 for place in range(len(cells))]
    return torch.tensor(cells).repeat_interleave(torch.tensor(counts), 0)


@pytest.fixture
def groups():
    return Groups(NAMES)


@pytest.fixture
def training(groups):
    """The group index of the training set that ``make`` shows to a mechanism."""
    return population(groups)


@pytest.fixture(params=MECHANISMS)
def make(request, groups):
    """Builds each built-in mechanism: make(seed) with its default settings unless others are given.

    Like the loop, it asks for the sampling weights first.
    """
    name, fixed = MECHANISMS[request.param]

    def build_it(seed=0, names=groups, **settings):
        mechanism = build_mechanism(name, names, seed, **fixed, **settings)
        mechanism.sampling_weights(population(names))
        return mechanism

    build_it.kind = request.param
    return build_it


@pytest.fixture
def batch():
    """Losses, groups with some unknown, timesteps of 64 images."""
    generator = torch.Generator().manual_seed(5)
    index = torch.stack(
        [torch.randint(-1, 2, (64,), generator=generator), torch.randint(-1, 3, (64,), generator=generator)], 1
    )
    return torch.rand(64, generator=generator), index, torch.randint(0, 1000, (64,), generator=generator)


@pytest.fixture
def probe_of(groups):
    """probe_of(sex, age, each): a probe in which a loss is sex[s] + age[a], ``each`` images a cell."""

    def make_probe(sex, age, each=10):
        rows = [(s, a) for s in range(2) for a in range(3)] * each
        losses = torch.tensor([sex[s] + age[a] for s, a in rows], dtype=torch.float64)
        return group_losses(losses, torch.tensor(rows), groups)

    return make_probe
