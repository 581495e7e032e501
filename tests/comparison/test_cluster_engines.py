"""Jobs on a real Ray instance and on submitit's local executor, both started on this machine."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from equigen.comparison.runners.base import Job, run_jobs
from equigen.comparison.runners.cluster import check_engine, open_engine
from equigen.errors import EquigenError, InputError

pytestmark = pytest.mark.slow
SETTINGS = {
    "ray": {"init": {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}},
    "submitit": {"cluster": "local", "timeout_min": 5},
}


class States:
    """A watcher that keeps how each job ended."""

    def __init__(self):
        self.ends, self.most = {}, 0

    def show(self, handles):
        self.most = max(self.most, sum(handle.state == "running" for handle in handles))

    def ended(self, handle):
        self.ends[handle.job.name] = handle.state


@pytest.fixture(params=sorted(SETTINGS))
def engine(request, tmp_path, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token file in the home folder
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    check_engine(request.param, SETTINGS[request.param])
    return open_engine(request.param, 2, 1, SETTINGS[request.param], tmp_path / "queue")


def job(folder: Path, name: str, code: str = "", after: tuple[str, ...] = ()) -> Job:
    lines = f"{code}\nopen({str(folder / 'order')!r}, 'a').write({name!r} + ' ')"
    log = folder / "logs" / f"{name}.log"
    return Job(name, "k", (sys.executable, "-c", lines), log, lambda: False, after, environment={"WORD": "red"})


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")  # of Ray's own processes
def test_jobs_run_in_order_with_their_environment_fail_alone_and_end_when_interrupted(engine, tmp_path):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in the background; submitit interrupts its jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher, pid = States(), tmp_path / "pid"
    jobs = [
        job(tmp_path, "first", "import os; print(os.environ['WORD'])"),
        job(tmp_path, "bad", "raise SystemExit('the disk is gone')"),
        job(tmp_path, "second", after=("first",)),
        job(tmp_path, "orphan", after=("bad",)),
        job(tmp_path, "endless", f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(300)"),
    ]

    class Interrupts(States):
        def show(self, handles):
            super().show(handles)
            finished = all(handle.state not in ("waiting", "running") for handle in handles[:4])
            if finished and pid.exists() and pid.read_text():
                raise KeyboardInterrupt

    watcher = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, engine, watcher, tmp_path / "seconds.json", pause=0.1)
    assert watcher.ends == {"first": "done", "bad": "failed", "second": "done", "orphan": "skipped"}
    assert (tmp_path / "order").read_text().split() == ["first", "second"]
    logs = {name: (tmp_path / "logs" / f"{name}.log").read_text() for name in ("first", "bad")}
    assert logs == {"first": "red\n", "bad": "the disk is gone\n"}
    assert watcher.most == 2 and not is_alive(int(pid.read_text()))


def is_alive(pid: int) -> bool:
    import time

    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            return False
        time.sleep(0.1)
    return True


def test_tasks_of_ray_have_the_resources_of_a_job_and_no_second_try(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)  # a cluster of the caller's, which stays up
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("the caller's cluster was shut down"))
    engine = open_engine("ray", None, 4, {"task": {"num_gpus": 1}}, tmp_path)
    options = engine.task._default_options
    assert (options["num_cpus"], options["num_gpus"], options["max_retries"]) == (4, 1, 0)
    engine.close()
    with pytest.raises(InputError, match=r"engine_settings.gpus \(use some of: init, task\)"):
        check_engine("ray", {"gpus": 1})


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_failed_job_names_its_log(tmp_path):
    pytest.importorskip("submitit")
    engine = open_engine("submitit", 1, 1, SETTINGS["submitit"], tmp_path / "queue")
    with pytest.raises(EquigenError, match=r"1 of 1 jobs failed.*\n  bad: see .*bad\.log"):
        run_jobs([job(tmp_path, "bad", "raise SystemExit(3)")], engine, States(), tmp_path / "s.json", pause=0.1)
