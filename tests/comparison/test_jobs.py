"""Jobs: order, failure, what is done already, interruption, time left; submitit's queue by a stand-in of its API."""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from equigen.comparison.job_process import end_with_parent
from equigen.comparison.runners import cluster as jobs_cluster
from equigen.comparison.runners import local as jobs_local
from equigen.comparison.runners.base import Job, run_jobs
from equigen.comparison.runners.cluster import check_engine, open_engine
from equigen.comparison.runners.local import LocalEngine, execute
from equigen.comparison.runners.progress import job_progress, summary, time_left
from equigen.errors import EquigenError, InputError
from equigen.files import read_json


class Quiet:
    """A watcher that remembers."""

    def __init__(self):
        self.told, self.most = [], 0

    def show(self, handles):
        self.most = max(self.most, sum(handle.state == "running" for handle in handles))

    def ended(self, handle):
        self.told.append((handle.job.name, handle.state))


def job(place, name, code="", after=(), done=lambda: False, **rest):
    """A Python process that appends its name to a file after doing ``code``."""
    lines = f"{code}\nopen({str(place / 'order')!r}, 'a').write({name!r} + ' ')"
    log = place / "logs" / f"{name}.log"
    return Job(name, rest.pop("kind", "k"), (sys.executable, "-c", lines), log, done, tuple(after), **rest)


def run(place, jobs, slots=2, watcher=None):
    return run_jobs(jobs, LocalEngine(slots), watcher or Quiet(), place / "seconds.json", pause=0.02)


def order(place) -> list[str]:
    return (place / "order").read_text().split() if (place / "order").exists() else []


def test_jobs_run_after_those_they_need_and_no_more_at_once_than_slots(tmp_path):
    watcher = Quiet()
    slow = "import time; time.sleep(0.3)"
    jobs = [job(tmp_path, "a", slow), job(tmp_path, "b", slow), job(tmp_path, "c", slow)]
    jobs += [job(tmp_path, "last", after=["a", "b", "c"])]
    spent = run(tmp_path, jobs, 2, watcher)
    assert sorted(order(tmp_path)[:3]) == ["a", "b", "c"] and order(tmp_path)[3:] == ["last"]
    assert watcher.most == 2
    assert set(spent) == {"a", "b", "c", "last"} == set(read_json(tmp_path / "seconds.json"))


def test_a_failure_stops_only_what_needs_it_and_shows_the_end_of_its_log(tmp_path, capsys):
    bad = "for i in range(30): print('line', i, flush=True)\nraise SystemExit('the [disk] is gone')"
    jobs = [job(tmp_path, "bad", bad), job(tmp_path, "child", after=["bad"]), job(tmp_path, "grand", after=["child"])]
    jobs += [job(tmp_path, "other", "import time; time.sleep(0.4)"), job(tmp_path, "next", after=["other"])]
    engine = LocalEngine(2)
    message = r"1 of 5 jobs failed; 2 that need them were not tried.*\n  bad: see .*logs/bad\.log"
    with job_progress({}, engine, show=False) as watcher, pytest.raises(EquigenError, match=message):
        run_jobs(jobs, engine, watcher, tmp_path / "seconds.json", pause=0.02)
    assert order(tmp_path) == ["other", "next"]
    told = capsys.readouterr().err
    assert "the [disk] is gone" in told and "line 29" in told and "line 3\n" not in told


def test_what_is_done_is_not_started_and_it_is_asked_when_its_time_has_come(tmp_path):
    def made():
        return "first" in order(tmp_path)

    watcher = Quiet()
    jobs = [job(tmp_path, "first"), job(tmp_path, "second", after=["first"], done=made)]
    spent = run(tmp_path, jobs, watcher=watcher)
    assert order(tmp_path) == ["first"] and set(spent) == {"first"}
    assert watcher.told == [("first", "done"), ("second", "done")]


def test_an_interruption_ends_children_and_their_children_and_counts_their_time(tmp_path):
    child = "import time; time.sleep(60)"
    pid = tmp_path / "pid"
    parent = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    parent += f"open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"

    class Interrupts(Quiet):
        def show(self, handles):
            if pid.exists() and pid.read_text():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [job(tmp_path, "slow", parent)], watcher=Interrupts())
    assert not alive(int(pid.read_text()))
    assert order(tmp_path) == [] and read_json(tmp_path / "seconds.json")["slow"] > 0


def alive(pid) -> bool:
    """Whether a process still works; one that nobody has waited for does not."""
    for _ in range(100):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        if re.search(r"State:\tZ", status):
            return False
        time.sleep(0.05)
    return True


def test_seconds_of_all_tries_are_added(tmp_path):
    (tmp_path / "seconds.json").write_text('{"a": 100.0, "gone": 7.0}')
    spent = run(tmp_path, [job(tmp_path, "a")])
    assert 100 < spent["a"] < 160 and spent["gone"] == 7.0


def test_jobs_see_their_environment_and_a_gpu_each_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    engine = LocalEngine(2)
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS']); time.sleep(0.4)"
    jobs = [job(tmp_path, name, code, environment={"OMP_NUM_THREADS": "3"}) for name in "ab"]
    run_jobs(jobs, engine, Quiet(), tmp_path / "seconds.json", pause=0.02)
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in "ab"] == ["4 3\n", "7 3\n"]
    assert not engine.used


def test_a_job_ends_when_the_process_that_started_it_is_gone(tmp_path, monkeypatch):
    """That one may have been killed, so that it could not tidy up."""
    execute([sys.executable, "-c", "import os; print(os.environ['EQUIGEN_PARENT'])"], str(tmp_path / "log"), {})
    assert (tmp_path / "log").read_text() == f"{os.getpid()}\n"
    ended, parents = threading.Event(), [11, 11, 1]
    killed = []
    monkeypatch.setattr(os, "getppid", lambda: parents.pop(0))
    monkeypatch.setattr(os, "kill", lambda *what: (killed.append((what, len(parents))), ended.set()))
    monkeypatch.setenv("EQUIGEN_PARENT", "11")
    end_with_parent(0.01)
    assert ended.wait(20) and killed == [((os.getpid(), signal.SIGTERM), 0)]
    assert "EQUIGEN_PARENT" not in os.environ  # a process that this one starts is not tied to it
    end_with_parent(0.01)


def handle(name, kind, units, state, seconds=0.0):
    found = SimpleNamespace(name=name, kind=kind, units=units)
    return SimpleNamespace(job=found, state=state, seconds=seconds)


def test_time_left_is_the_rate_of_what_is_done_times_what_is_left():
    handles = [
        handle("a", "train", 100, "done", 50.0),  # 0.5 s a unit, with b: (50 + 130) / 200 = 0.9
        handle("b", "train", 100, "done", 30.0),  # 100 s of an earlier try
        handle("c", "train", 200, "running", 60.0),  # 180 - 60
        handle("d", "train", 100, "waiting"),  # 90
    ]
    assert time_left(handles, {"b": 100.0}, 2) == (pytest.approx(120.0), True)  # the longest; (120 + 90) / 2 = 105
    assert time_left(handles, {"b": 100.0}, 1) == (pytest.approx(210.0), True)
    more = [*handles, handle("e", "sample", 10, "waiting"), handle("f", "train", 1, "failed", 3.0)]
    left = time_left(more, {"b": 100.0}, 1)
    assert left == (pytest.approx(210.0), False)
    assert summary(more, left) == "2 of 6 done, 1 running, 1 failed, more than 3 min 30 s left"
    assert time_left(handles[2:], {}, 1) == (0.0, False)


def test_default_slots_are_gpus_or_what_the_cores_feed(monkeypatch):
    monkeypatch.setattr(jobs_local.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert [jobs_local.default_slots(threads) for threads in (1, 2, 16)] == [9, 4, 1]
    monkeypatch.setattr(jobs_local.torch.cuda, "device_count", lambda: 3)
    assert open_engine("local", None, 2, {}, None).slots == 3
    assert open_engine("local", 5, 2, {}, None).slots == 5


def test_a_command_that_fails_is_an_error_that_names_its_log(tmp_path):
    with pytest.raises(RuntimeError, match=r"exit status 3; see .*log"):
        execute([sys.executable, "-c", "print('said'); raise SystemExit(3)"], str(tmp_path / "log"), {})
    assert (tmp_path / "log").read_text() == "said\n"


def test_engines_that_are_not_there_and_settings_that_would_do_nothing_are_refused(monkeypatch):
    for name in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    check_engine("local", {})
    with pytest.raises(InputError, match=r"ray is not installed \(pip install 'equigen\[ray\]'"):
        check_engine("ray", {})
    with pytest.raises(InputError, match=r"submitit is not installed \(pip install 'equigen\[submitit\]'"):
        open_engine("submitit", None, 1, {}, None)
    with pytest.raises(InputError, match=r"engine_settings.num_gpus \(the engine 'local' takes none"):
        check_engine("local", {"num_gpus": 1})


class FakeExecutor:
    """The part of submitit.AutoExecutor that is used; a job runs when it is asked whether it is done."""

    def __init__(self, folder, cluster=None):
        self.folder, self.cluster, self.updates = folder, cluster, []
        FakeExecutor.last = self

    def update_parameters(self, **parameters):
        self.updates.append(parameters)

    def submit(self, function, *arguments):
        state = SimpleNamespace(error=None, cancelled=False)

        def done():
            try:
                function(*arguments)
            except RuntimeError as error:
                state.error = error
            return True

        return SimpleNamespace(done=done, exception=lambda: state.error, cancel=lambda check: None)


def test_submitit_puts_jobs_into_the_queue_when_their_time_has_come(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=FakeExecutor))
    settings = {"cluster": "slurm", "timeout_min": 60, "slurm_partition": "gpu"}
    check_engine("submitit", settings)
    engine = open_engine("submitit", None, 2, settings, tmp_path / "queue")
    jobs = [job(tmp_path, "a"), job(tmp_path, "b", after=["a"]), job(tmp_path, "bad", "raise SystemExit('no')")]
    watcher = Quiet()
    with pytest.raises(EquigenError, match=r"bad: see"):
        run_jobs(jobs, engine, watcher, tmp_path / "seconds.json", pause=0)
    executor = FakeExecutor.last
    assert executor.folder == str(tmp_path / "queue" / "%j") and executor.cluster == "slurm"
    common = {"cpus_per_task": 2, "timeout_min": 60, "slurm_partition": "gpu"}
    assert executor.updates == [{"name": f"equigen {name}", **common} for name in ("a", "bad", "b")]
    assert order(tmp_path) == ["a", "b"] and ("bad", "failed") in watcher.told


def test_a_process_that_was_killed_says_by_what(tmp_path, capsys):
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    engine = LocalEngine(1)
    with job_progress({}, engine, show=False) as watcher, pytest.raises(EquigenError):
        run_jobs([job(tmp_path, "a", code)], engine, watcher, tmp_path / "s.json", pause=0.02)
    assert "ended by SIGKILL" in capsys.readouterr().err


def test_cluster_handles_have_no_limit_of_their_own_unless_one_is_asked_for():
    room = jobs_cluster._Limited(None)
    room.active = 7
    assert room.slots == 7 and jobs_cluster._Limited(3).slots == 3
