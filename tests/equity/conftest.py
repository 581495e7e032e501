"""Groups of two attributes, and made-up probes."""

import pytest
import torch

from equigen.equity import Groups, build, group_losses

NAMES = (("sex", ("female", "male")), ("age", ("young", "middle", "old")))
MECHANISMS = {
    "none": ("none", {}),
    "released": ("perturbation", {"variant": "released"}),
    "corrected": ("perturbation", {"variant": "corrected"}),
}


@pytest.fixture
def groups():
    return Groups(NAMES)


@pytest.fixture(params=MECHANISMS)
def make(request, groups):
    """Builds each built-in mechanism: make(seed) with its default settings unless others are given."""
    name, fixed = MECHANISMS[request.param]

    def build_it(seed=0, names=groups, **settings):
        return build(name, names, seed, **fixed, **settings)

    build_it.kind = request.param
    return build_it


@pytest.fixture
def batch():
    """Losses, groups with some unknown, timesteps of 64 images."""
    generator = torch.Generator().manual_seed(5)
    index = torch.stack([torch.randint(-1, 2, (64,), generator=generator),
                         torch.randint(-1, 3, (64,), generator=generator)], 1)
    return torch.rand(64, generator=generator), index, torch.randint(0, 1000, (64,), generator=generator)


@pytest.fixture
def probe_of(groups):
    """probe_of(sex, age, each): a probe in which a loss is sex[s] + age[a], ``each`` images a cell."""

    def make_probe(sex, age, each=10):
        rows = [(s, a) for s in range(2) for a in range(3)] * each
        losses = torch.tensor([sex[s] + age[a] for s, a in rows], dtype=torch.float64)
        return group_losses(losses, torch.tensor(rows), groups)

    return make_probe


