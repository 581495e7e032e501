"""Jobs on a cluster by Ray or submitit (Slurm), two optional extras; all machines share the disk of the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from equigen.comparison.runners.base import Engine, Handle, Job, State
from equigen.comparison.runners.local import LocalEngine, default_slots, execute
from equigen.errors import InputError, Problem


def open_engine(name: str, slots: int | None, threads: int, settings: Mapping[str, Any], folder: Path) -> Engine:
    """Open the engine of a name.

    Args:
        name: ``local``; ``ray``, or ``submitit``, each an optional extra of equigen.
        slots: jobs at once; None takes what this machine holds, and sets no limit on a cluster.
        threads: processor cores that a job uses.
        settings: for ray ``init`` (arguments of ``ray.init``) and ``task`` (options of each task, such as
            ``num_gpus``); for submitit ``cluster`` (``slurm``, say) and parameters of ``update_parameters``
            (``timeout_min``, ``slurm_partition``, ``gpus_per_node``).
        folder: where submitit keeps its own files.

    Raises:
        InputError: the extra is not installed, or a setting is not known.

    """
    if name == "ray":
        return RayEngine(_extra("ray"), slots, threads, settings)
    if name == "submitit":
        return SubmititEngine(_extra("submitit"), slots, threads, settings, folder)
    return LocalEngine(slots or default_slots(threads))


def check_engine(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError when an engine is not installed, or does not know a setting."""
    if name != "local":
        _extra(name)
    keys: Sequence[str] | None = {"local": (), "ray": ("init", "task")}.get(name)
    wrong = [key for key in settings if keys is not None and key not in keys]
    if wrong:
        mend = f"use some of: {', '.join(keys)}" if keys else "the engine 'local' takes none: leave them out"
        raise InputError(
            f"The engine '{name}' does not know a setting.", [Problem(f"engine_settings.{key}", mend) for key in wrong]
        )


def _extra(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        problem = Problem(f"{name} is not installed", f"pip install 'equigen[{name}]', or use --engine local")
        raise InputError(f"The engine '{name}' is not there.", [problem]) from error


class _Limited:
    """An engine with at most ``slots`` jobs on a cluster."""

    def __init__(self, slots: int | None) -> None:
        self.limit, self.active = slots, 0

    @property
    def slots(self) -> int:
        """Jobs at once: the limit, or without one the number of submitted jobs."""
        return self.limit or max(1, self.active)


class _ClusterHandle(Handle):
    """A handle that counts the submitted jobs of its engine."""

    def __init__(self, engine: _Limited, job: Job, after: Sequence[Handle]) -> None:
        super().__init__(job, after)
        self.room = engine

    def ready(self) -> bool:
        """Return whether one more job may be submitted."""
        return self.room.limit is None or self.room.active < self.room.limit

    def _started(self) -> None:
        self.room.active += 1
        self.job.log.parent.mkdir(parents=True, exist_ok=True)

    def _ended(self, error: object) -> State:
        self.room.active -= 1
        self.message = "" if error is None else str(error)
        return "done" if error is None else "failed"

    def _arguments(self) -> tuple[list[str], str, dict[str, str]]:
        return list(self.job.command), str(self.job.log.resolve()), dict(self.job.environment)


class RayEngine(_Limited):
    """Ray tasks: https://docs.ray.io/en/latest/ray-core/tasks.html."""

    def __init__(self, ray: Any, slots: int | None, threads: int, settings: Mapping[str, Any]) -> None:
        super().__init__(slots)
        self.ray = ray
        self.own = not ray.is_initialized()
        if self.own:
            ray.init(**settings.get("init", {}))
        # no retries: a job that failed is told, and goes on where it stopped when compare is run again
        options = {"num_cpus": threads, "max_retries": 0, **settings.get("task", {})}
        self.task = ray.remote(**options)(execute)

    def submit(self, job: Job, after: Sequence[Handle]) -> Handle:
        """Take a job; it becomes a task when those of ``after`` are done."""
        return RayHandle(self, job, after)

    def close(self) -> None:
        """Leave the cluster, unless the caller was in it before."""
        if self.own:
            self.ray.shutdown()


class RayHandle(_ClusterHandle):
    """One Ray task."""

    def __init__(self, engine: RayEngine, job: Job, after: Sequence[Handle]) -> None:
        super().__init__(engine, job, after)
        self.engine, self.task = engine, None

    def start(self) -> None:
        """Hand the task over; Ray queues it."""
        self._started()
        self.task = self.engine.task.remote(*self._arguments())

    def check(self) -> State:
        """By whether its result can be had."""
        ray = self.engine.ray
        if not ray.wait([self.task], timeout=0)[0]:
            return "running"
        try:
            ray.get(self.task)
        except ray.exceptions.RayError as error:
            return self._ended(error)
        return self._ended(None)

    def cancel(self) -> None:
        """Raise KeyboardInterrupt in the task, which ends its process."""
        self.engine.ray.cancel(self.task, force=False)


class SubmititEngine(_Limited):
    """Jobs of a cluster's queue by submitit: https://facebookincubator.github.io/submitit/."""

    def __init__(
        self, submitit: Any, slots: int | None, threads: int, settings: Mapping[str, Any], folder: Path
    ) -> None:
        super().__init__(slots)
        parameters = dict(settings)
        cluster = parameters.pop("cluster", None)
        self.executor = submitit.AutoExecutor(folder=str(folder.resolve() / "%j"), cluster=cluster)
        self.parameters = {"cpus_per_task": threads, **parameters}

    def submit(self, job: Job, after: Sequence[Handle]) -> Handle:
        """Take a job; it enters the queue when those of ``after`` are done."""
        return SubmititHandle(self, job, after)

    def close(self) -> None:
        """Nothing is held."""


class SubmititHandle(_ClusterHandle):
    """One job of a cluster's queue."""

    def __init__(self, engine: SubmititEngine, job: Job, after: Sequence[Handle]) -> None:
        super().__init__(engine, job, after)
        self.engine = engine
        self.task: Any = None

    def start(self) -> None:
        """Put it into the queue."""
        self._started()
        self.engine.executor.update_parameters(name=f"equigen {self.job.name}", **self.engine.parameters)
        self.task = self.engine.executor.submit(execute, *self._arguments())

    def check(self) -> State:
        """By submitit's record."""
        return self._ended(self.task.exception()) if self.task.done() else "running"

    def cancel(self) -> None:
        """Take it off the queue, or end it."""
        self.task.cancel(check=False)
