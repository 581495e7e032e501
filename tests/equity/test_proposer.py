"""Proposals beside the training: the same as here to the last bit, whatever becomes of the process that makes them."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from equigen.equity import Proposal
from equigen.equity.proposer import Proposer
from equigen.equity.request import ProposalRequest, answer_from_line, answer_to_line

TELLS_NOW = """
import json, os, sys, time
for line in sys.stdin:
    while len(sys.argv) > 1 and not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print(json.dumps({"point": [json.loads(line)["now"]], "fallback": None}), flush=True)
"""


def question(n=9, seed=5, now=1000.0):
    points = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ProposalRequest(points, -(points - 0.3).square().sum(1), 100 * torch.arange(n), now, 0.1, seed)


def stand_in(code, *arguments):
    """The command of a process that imports nothing of ours."""
    return sys.executable, "-S", "-c", code, *map(str, arguments)


def gone(pid):
    """Whether a process has ended (a zombie has, too)."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(happened):
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def proposer():
    """One worker for all tests that need the true one."""
    made = Proposer()
    yield made
    made.close()


def test_a_question_loses_no_digit_on_its_way():
    points, rewards = torch.tensor([[0.1, 1 / 3], [1e-300, 1.0]]).double(), torch.tensor([-1e300, 2.0**-1074]).double()
    asked = ProposalRequest(points, rewards, torch.tensor([0, 2**52 + 1]), 0.1 + 0.2, 1e-17, 2**62 + 1)
    read = ProposalRequest.from_line(asked.to_line())
    for name in ("points", "rewards", "times"):
        assert torch.equal(getattr(read, name), getattr(asked, name).double())
    assert (read.time, read.beta, read.seed) == (asked.time, asked.beta, asked.seed)


def test_an_answer_loses_no_digit_either():
    told = Proposal(torch.tensor([1 / 3, 0.0], dtype=torch.float64), "NotPSDError: not\npositive")
    read = answer_from_line(answer_to_line(told))
    assert torch.equal(read.point, told.point)
    assert read.fallback == told.fallback
    assert "\n" not in answer_to_line(told)


def test_the_answer_is_the_one_given_here(proposer):
    """More than 64 points too, of which both look at the newest; one worker answers all."""
    for asked in (question(), question(70, seed=8, now=7000.0)):
        proposer.ask(asked)
        found, expected = proposer.answer(asked), asked.compute()
        assert torch.equal(found.point, expected.point)
        assert found.fallback is None
        assert 0 < float(found.point.max()) < 1


def test_threads_do_not_change_an_answer():
    expected, before = question().compute().point, torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert torch.equal(question().compute().point, expected)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_is_killed_is_made_up_for_and_replaced(proposer):
    proposer.ask(question(seed=6))
    first = proposer.worker.pid
    os.kill(first, signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="exit status -9"):
        found = proposer.answer(question(seed=6))
    assert torch.equal(found.point, question(seed=6).compute().point)
    again = proposer.answer(question(seed=7))
    assert torch.equal(again.point, question(seed=7).compute().point)
    assert proposer.worker.pid != first
    assert gone(first)


def test_asking_does_not_wait(tmp_path):
    """The stand-in answers only once a file is there, which is written after asking."""
    beside = Proposer(stand_in(TELLS_NOW, tmp_path / "go"))
    beside.ask(question(now=3.0))
    assert beside.worker.poll() is None
    (tmp_path / "go").touch()
    assert beside.answer(question(now=3.0)).point.tolist() == [3.0]


def test_each_question_gets_its_own_answer():
    beside = Proposer(stand_in(TELLS_NOW))
    beside.ask(question(now=1.0))
    pid = beside.worker.pid
    beside.ask(question(now=1.0))
    assert beside.worker.pid == pid
    beside.ask(question(now=2.0))  # the run was taken back to another state
    assert beside.answer(question(now=2.0)).point.tolist() == [2.0]
    assert beside.answer(question(now=1.0)).point.tolist() == [1.0]


@pytest.mark.parametrize(
    "command, reason",
    [
        (("/no/such/program",), "could not be started"),
        (stand_in("import sys; sys.exit(3)"), "exit status 3|could not be started or asked"),
        (stand_in("print('{\"point\"', flush=True); input(); input()"), "Expecting"),
        (stand_in("input(); input()"), r"no answer for 0\.2 seconds"),
    ],
)
def test_a_worker_that_fails_is_made_up_for(command, reason):
    beside = Proposer(command, patience=20 if "print" in command[-1] or "exit" in command[-1] else 0.2)
    with pytest.warns(RuntimeWarning, match=reason):
        found = beside.answer(question())
    assert torch.equal(found.point, question().compute().point)
    assert beside.worker is None


def test_a_worker_that_died_unasked_is_replaced_without_a_word():
    beside = Proposer(stand_in(TELLS_NOW))
    beside.start()
    first = beside.worker
    first.kill()
    first.wait()
    assert beside.answer(question(now=4.0)).point.tolist() == [4.0]
    assert beside.worker is not first


def test_a_fault_of_the_question_is_raised_here():
    from equigen.errors import InputError

    broken = ProposalRequest(torch.full((2, 1), 2.0), torch.zeros(2), torch.arange(2), 1.0, 0.1, 0)
    with pytest.warns(RuntimeWarning), pytest.raises(InputError, match=r"outside \[0, 1\]"):
        Proposer(stand_in("input()")).answer(broken)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_it_ends_with_its_owner(end):
    beside = Proposer(stand_in("input(); input()"))
    beside.ask(question())
    pid = beside.worker.pid
    assert not gone(pid)
    if end == "close":
        beside.close()
        beside.close()
        assert beside.worker is None
    else:
        del beside
        gc.collect()
    assert gone(pid)


COLD = "import equigen.equity.worker as w; w.warm_up = lambda: print('noise', flush=True); "  # without BoTorch
UNGUARDED = f"""
import sys, time
from equigen.equity.proposer import Proposer
proposer = Proposer((sys.executable, "-c", {COLD + "w.main()"!r}))
proposer.start()
print(proposer.worker.pid, flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_it_ends_with_a_program_that_ends_or_is_killed(end):
    """Also: a script without a main guard may start it, and it is not started twice."""
    line = [sys.executable, "-c", UNGUARDED, "wait" if end == "kill" else "end"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as program:
        pid = int(program.stdout.readline())
        if end == "kill":
            assert not gone(pid)
            program.kill()
        assert program.stdout.read() == ""
    wait_until(lambda: gone(pid))


def test_the_worker_writes_answers_alone_to_its_output():
    """What a library prints does not get between the answers."""
    code = COLD + "w.serve = lambda questions, answers: print(questions.read(), file=answers); w.main()"
    done = subprocess.run([sys.executable, "-c", code], input="answer", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("answer\n", "noise\n")
