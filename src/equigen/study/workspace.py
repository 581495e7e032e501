"""The run folder of a study or a comparison: its lock, the stamps of its stages, and its cohort."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import equigen
from equigen.cohort import Cohort, write_phantom
from equigen.errors import InputError, Problem
from equigen.integrity import remove_temporary_files
from equigen.locks import lock_folder
from equigen.progress import console
from equigen.study.stage_settings import RunSettings
from equigen.study.stages import DamageError, Stages

ROUNDS = 5  # times that all stages are run to replace damaged files
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "botorch", "scikit-learn", "numpy")


class Workspace:
    """A run folder, in which one process at a time runs stages.

    ``base``: folder of the settings file, to which its paths are relative. ``source``: the file that errors name.
    ``verify``: hash every file of every finished stage. ``accept``: accept files that were edited.
    """

    def __init__(
        self,
        folder: str | Path,
        base: str | Path,
        show: bool = True,
        source: str = "study",
        verify: bool = False,
        accept: bool = False,
    ) -> None:
        self.folder, self.base, self.show, self.source = Path(folder), Path(base), show, source
        self.stages = Stages(self.folder, verify, accept)
        self.features = self.folder / "features"

    def run(self, work: Callable[[], Path]) -> Path:
        """Call ``work`` while the folder is locked, again after damage to a finished stage; return what it returns.

        Raises InputError before any work while another process works in the folder.
        """
        with lock_folder(self.folder):
            orphans = remove_temporary_files(self.folder)
            if orphans:
                console.print(f"{len(orphans)} half-written files of a process that was ended are removed")
            for _ in range(ROUNDS):
                try:
                    return work()
                except DamageError:
                    console.print("[yellow]Going through the stages again, to make what is damaged.[/yellow]")
        problem = Problem("files are damaged again as soon as they are made", "check the disk", file=str(self.folder))
        raise InputError("The run folder cannot be kept whole.", [problem])

    def open_cohort(self, settings: RunSettings) -> Cohort:
        """Read the cohort, or write and read the phantom. Its files are checked at every call: they may change."""
        phantom = settings.phantom
        if phantom is not None:
            folder = self.stages.run(
                "phantom",
                [equigen.__version__, phantom.model_dump()],
                lambda out: write_phantom(  # the stage's key says whose images they are
                    out, phantom.images, phantom.seed, show=self.show, verify_owner=False
                ),
                results=["metadata.csv", "cohort.yaml"],
            )
            cohort = Cohort.read(folder / "cohort.yaml", show_progress=self.show)
        elif isinstance(settings.cohort, str):
            cohort = Cohort.read(self.base / settings.cohort, quarantine=settings.quarantine, show_progress=self.show)
        else:
            cohort = Cohort.from_spec(
                settings.cohort or {},
                self.base,
                quarantine=settings.quarantine,
                show_progress=self.show,
                source=self.source,
            )
        self.stages.run("cohort", [cohort.hash, str(cohort.root)], cohort.save, ["cohort.parquet", "cohort.json"])
        return cohort

    def warnings(self, cohort: Cohort) -> list[str]:
        """Return the warnings of a report: those of the cohort, rows left out, and files that were edited."""
        warnings = [str(problem) for problem in cohort.warnings]
        warnings += [f"left out: {problem}" for problem in cohort.quarantined]
        return warnings + [
            f"edited by hand after it was written, and accepted: {name}" for name in self.stages.accepted
        ]


def versions() -> dict[str, str]:
    """Return the versions of equigen, Python and the libraries that numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"equigen": equigen.__version__, "python": platform.python_version(), **libraries}
