"""Decisions worked out beside the training: when they take effect, whom a reward belongs to, and what a resume does."""

import sys

import pytest
import torch

from equigen.equity import Groups, Proposal, group_losses
from equigen.equity.perturbation_corrected import CorrectedPerturbation
from equigen.equity.proposer import Proposer
from equigen.errors import InputError
from equigen.seeds import derive_seed

TWO = Groups((("sex", ("female", "male")),))
INDEX = torch.arange(40)[:, None] % 2


class StandIn:
    """Answers at once with a point made from all of the question, and notes what it was asked when."""

    def __init__(self):
        self.events = []

    def start(self):
        if "start" not in self.events:
            self.events.append("start")

    def ask(self, question):
        self.events.append(("ask", int(question.time)))

    def answer(self, question):
        self.events.append(("answer", int(question.time)))
        seed = derive_seed(0, question.to_line())
        return Proposal(torch.rand(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), None)


class Forbidden:
    """For processes that do not decide."""

    def __getattr__(self, name):
        raise AssertionError(name)


def make(proposer=None, state=None, **settings):
    mechanism = CorrectedPerturbation(TWO, 0, **{"window_images": 100, "design": 1, "delay_images": 25, **settings})
    mechanism.proposer = StandIn() if proposer is None else proposer
    if state is not None:
        mechanism.load_state_dict(state)
    return mechanism


def probe(seen):
    """Two groups whose losses differ from window to window."""
    return group_losses(1 + torch.rand(40, generator=torch.Generator().manual_seed(seen)), INDEX, TWO)


def step(mechanism, seen, size, decide=True):
    """One step as the loop does it; the sigma that ruled it."""
    if decide:
        mechanism.decide(seen)
    mechanism.weights(torch.full((size,), torch.nan), INDEX[:1].expand(size, 1), torch.zeros(size), seen)
    ruled = mechanism.sigma.clone()
    if mechanism.wants_probe(seen + size):
        mechanism.observe_probe(probe(seen + size), seen + size)
    return ruled


def sigmas(mechanism, first, last, size, **others):
    return torch.stack([step(mechanism, seen, size, **others) for seen in range(first, last, size)])


def changes(found, size):
    """Images seen before the batches that another sigma ruled than the batch before."""
    return [size * place for place in range(1, len(found)) if not torch.equal(found[place], found[place - 1])]


@pytest.mark.parametrize(
    "size, expected",
    [
        (5, [125, 225, 325]),
        (10, [130, 230, 330]),  # rounded up to whole batches
        (64, [192, 320, 384]),  # windows end at 128, 256, 320: due at 153, 281, 345
        (150, [300, 450]),  # every batch a window: each proposal waits for one more
    ],
)
def test_a_proposal_rules_from_the_delay_on(size, expected):
    assert changes(sigmas(make(), 0, 451, size), size)[:3] == expected


def test_what_is_asked_at_once_is_answered_when_due():
    """Nothing waits in between, and the answer is the one to what was known when the window ended."""
    mechanism, beside = make(), StandIn()
    mechanism.proposer = beside
    sigmas(mechanism, 0, 240, 10)
    assert beside.events == ["start", ("ask", 100), ("answer", 100), ("ask", 200), ("answer", 200)]


def test_without_a_delay_nothing_runs_beside(monkeypatch):
    from equigen.equity import request as question

    def fixed(*_, current_time, **__):
        return Proposal(torch.full((2,), current_time / 1000, dtype=torch.float64), None)

    monkeypatch.setattr(question, "propose", fixed)
    found = sigmas(make(Forbidden(), delay_images=0), 0, 250, 10)
    assert found[:, 0].tolist() == [0.0] * 10 + [0.1] * 10 + [0.2] * 5


def test_a_reward_belongs_to_the_sigma_that_ruled_the_end_of_its_window():
    mechanism = make()
    found = sigmas(mechanism, 0, 400, 10)
    assert torch.equal(mechanism.points, found[[9, 19, 29, 39]])
    assert torch.equal(found[[12, 22, 32]], found[[9, 19, 29]])
    assert len(found.unique(dim=0)) == 4
    expected = [
        float(probe(end).means.min() - probe(end).means.max()) / probe(end).overall for end in (100, 200, 300, 400)
    ]
    assert mechanism.rewards.tolist() == pytest.approx(expected)


def test_a_window_that_ends_early_takes_no_credit_from_the_one_that_ruled_it():
    """Every batch is longer than a window: the sigma asked for at 150 rules the window from 300 to 450."""
    mechanism = make()
    found = sigmas(mechanism, 0, 750, 150)
    assert torch.equal(mechanism.points, found)
    assert mechanism.times.tolist() == [150, 300, 450, 600, 750]
    asked = [event for event in mechanism.proposer.events if event[0] == "answer"]
    assert asked == [("answer", 150), ("answer", 300), ("answer", 450)]
    assert mechanism.pending.tolist() == [600, 750]


@pytest.mark.parametrize("size", [10, 64, 150])
def test_a_run_cut_anywhere_goes_on_exactly(size):
    whole = sigmas(make(), 0, 6 * size + 330, size)
    for cut in range(0, 6 * size + 330, size):
        first = make()
        found = [sigmas(first, 0, cut, size)] if cut else []
        last = make(state=first.state_dict())
        found.append(sigmas(last, cut, 6 * size + 330, size))
        assert torch.equal(torch.cat(found), whole)


def test_what_is_under_way_is_asked_again_at_a_resume():
    first = make()
    sigmas(first, 0, 120, 10)
    state = first.state_dict()
    assert state["pending"].tolist() == [100]
    second = make(state=state)
    sigmas(second, 120, 140, 10)
    assert second.proposer.events == [("ask", 100), ("answer", 100)]
    assert second.state_dict()["pending"].tolist() == []
    assert state["pending"].tolist() == [100]  # a copy


@pytest.mark.parametrize("size", [10, 64, 150])
def test_the_first_process_decides_and_the_others_follow(size):
    """As the loop shares tensors out: shapes must agree before, and all is equal after, though one never proposes."""
    first, other = make(), make(Forbidden())
    for seen in range(0, 600, size):
        took = [first.decide(seen, True), other.decide(seen, False)]
        assert took[0] == took[1]
        if took[0]:
            share(first, other)
        assert torch.equal(step(first, seen, size, decide=False), step(other, seen, size, decide=False))
        share(first, other)
    assert len(first.points.unique(dim=0)) > 2


def share(first, other):
    sent, had = first.state_dict(), other.state_dict()
    for name, value in sent.items():
        assert not isinstance(value, torch.Tensor) or had[name].shape == value.shape
    other.load_state_dict(sent)


@pytest.mark.parametrize("size", [10, 64, 150])
def test_a_loop_that_does_not_call_decide_gets_the_same(size):
    assert torch.equal(sigmas(make(), 0, 600, size, decide=False), sigmas(make(), 0, 600, size))


def test_the_process_starts_a_window_before_it_is_needed():
    mechanism = make(design=3)
    sigmas(mechanism, 0, 200, 10)
    assert mechanism.proposer.events == []
    sigmas(mechanism, 200, 310, 10)
    assert mechanism.proposer.events == ["start", ("ask", 300)]


def test_fallbacks_under_way_are_counted_and_told():
    mechanism = make()
    mechanism.proposer.answer = lambda _: Proposal(torch.zeros(2, dtype=torch.float64), "NotPSDError: not positive")
    sigmas(mechanism, 0, 240, 10)
    assert mechanism.records()["fallbacks"] == 2.0
    other = make(state=mechanism.state_dict())
    assert (other.fallbacks, other.note) == (2, "NotPSDError: not positive")


def test_a_process_that_cannot_be_started_changes_no_sigma():
    """The true proposals: beside and within the steps are the same for the same delay."""
    broken = Proposer(("/no/such/program",))
    with pytest.warns(RuntimeWarning, match="within a training step"):
        found = sigmas(make(broken), 0, 130 + 10, 10)[-1]
    mechanism = make()
    sigmas(mechanism, 0, 100, 10)
    assert torch.equal(found, mechanism._proposal_request(100).compute().point)
    assert float(found.max()) > 0


@pytest.mark.parametrize("settings, delay", [({}, 1250), ({"window_images": 7}, 0), ({"delay_images": 40}, 40)])
def test_the_delay_is_an_eighth_of_the_window_unless_given(settings, delay):
    assert CorrectedPerturbation(TWO, 0, **settings).delay_images == delay


def test_another_delay_is_another_run():
    state = make().state_dict()
    with pytest.raises(InputError, match="'settings' is"):
        make(state=state, delay_images=24)


def test_closing_ends_the_process_and_the_run_can_go_on():
    mechanism = make(Proposer((sys.executable, "-S", "-c", "input(); input()")))
    sigmas(mechanism, 0, 110, 10)
    worker = mechanism.proposer.worker
    assert worker.poll() is None
    mechanism.close()
    assert worker.returncode is not None
    mechanism.decide(110)
    assert mechanism.proposer.worker.pid != worker.pid
    mechanism.close()
