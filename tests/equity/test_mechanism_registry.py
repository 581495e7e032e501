"""Mechanisms by name, with their settings, and from other packages."""

from importlib.metadata import EntryPoint

import pytest
import torch

from equigen.equity import build_mechanism, mechanism_names, registry
from equigen.equity.none import UniformWeights
from equigen.errors import InputError

BUILT_IN = ["none", "perturbation", "random", "reweight", "balanced", "group_dro", "minmax_noise"]


class Doubling(UniformWeights):
    """An outside mechanism with a setting."""

    name = "doubling"

    def __init__(self, groups, seed, *, factor=2.0):
        super().__init__(groups, seed)
        self.factor = factor

    def weights(self, losses, groups, timesteps, images_seen):
        return self.factor * torch.ones_like(losses)


def not_a_mechanism(groups, seed):
    return object()


@pytest.fixture
def outside(monkeypatch):
    points = tuple(
        EntryPoint(name, f"{__name__}:{value}", registry.ENTRY_POINTS)
        for name, value in (("doubling", "Doubling"), ("broken", "not_a_mechanism"))
    )
    found = {"equigen.mechanisms": points}
    monkeypatch.setattr(registry, "entry_points", lambda group: found[group])


def test_built_in_names_and_the_default_variant(groups):
    assert mechanism_names()[:7] == BUILT_IN
    assert build_mechanism("none", groups, 0).name == "none"
    assert build_mechanism("perturbation", groups, 0).name == "perturbation-corrected"
    assert build_mechanism("perturbation", groups, 0, variant="released").name == "perturbation-released"


def test_settings_reach_the_mechanism(groups):
    mechanism = build_mechanism("perturbation", groups, 0, window_images=77)
    assert not mechanism.wants_probe(76)
    assert mechanism.wants_probe(77)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("peturbation", {}, "'peturbation' is not known .use one of: none, perturbation"),
        ("perturbation", {"variant": "right"}, "variant 'right' is not known .use one of: corrected, released"),
        ("perturbation", {"rho": 0.5}, "'rho' is not known .use some of: window_images"),
        ("none", {"window": 3}, "'window' is not known .it takes no settings"),
        ("none", {"variant": "released"}, "'variant' is not known"),
    ],
)
def test_what_is_not_known_is_refused_with_the_choice(groups, name, settings, message):
    with pytest.raises(InputError, match=message):
        build_mechanism(name, groups, 0, **settings)


def test_a_mechanism_of_another_package(groups, outside):
    assert mechanism_names() == [*BUILT_IN, "broken", "doubling"]
    mechanism = build_mechanism("doubling", groups, 0, factor=3.0)
    assert mechanism.weights(torch.ones(2), torch.zeros(2, 2), torch.zeros(2), 0).tolist() == [3.0, 3.0]
    with pytest.raises(InputError, match="'speed' is not known"):
        build_mechanism("doubling", groups, 0, speed=1)
    with pytest.raises(InputError, match="makes no mechanism"):
        build_mechanism("broken", groups, 0)
