"""The door that notebooks come in by: a cohort, its trainings, and where results go.

study = open_study("laptop", "synthetic", jobs=2)
runs = study.train("biomarkers")
study.publish("table2", table)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from lusbio.cohorts.load import PUBLISHED_NAMES, TABLE_FILE, load_cohort
from lusbio.cohorts.table import Cohort
from lusbio.errors import CohortError, NothingToDo
from lusbio.files import Table, build_folder, figures_folder, to_markdown, write_csv, write_figure, write_text
from lusbio.network import USUAL_BACKBONE
from lusbio.profiles import PROFILES, find_profile
from lusbio.runs.origin import choose_initial_weights, describe_origin, record_runs
from lusbio.runs.plan import find_left_out, find_tasks
from lusbio.runs.spec import Own, PreparedCohort, Run, RunSpec, Say, find_finished, find_runs, load_run, prepare_cohort
from lusbio.runs.train import execute_many
from lusbio.vocabulary import ARTEFACTS, BIOMARKER_TASK, Artefact

TINY = replace(
    PROFILES["smoke"],
    name="tiny",
    training=replace(PROFILES["smoke"].training, frames=8, image_size=64, epochs=4, clips_per_epoch=128),
    patients=48,
    video_size=96,
    video_frames=(16, 24),
)
"""What can be simulated and trained within a minute on one core, where nothing better is there yet."""


class Shown(str):
    """Markdown that Jupyter shows as such."""

    def _repr_markdown_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Study(PreparedCohort):
    """A prepared cohort with everything that a notebook does with it.

    Attributes:
        jobs: How many trainings, fits or videos at a time.
    """

    jobs: int = 1

    @property
    def draws(self) -> int:
        """Draws of patients and runs behind every interval."""
        return self.profile.bootstrap_draws

    @cached_property
    def tasks(self) -> list[str]:
        """The paper's tasks that the cohort has labels to learn."""
        return [task for task in find_tasks(self)[0] if task != BIOMARKER_TASK]

    @property
    def unlearnable(self) -> dict[str, str]:
        """Why the other tasks cannot be learnt."""
        return find_tasks(self)[1]

    @property
    def left_out(self) -> dict[str, str]:
        """Which questions about the method the cohort does without, and why; see ``plan.find_left_out``."""
        return find_left_out(self)

    # --- trainings ---

    def describe_weights(self, backbone: str = USUAL_BACKBONE) -> str:
        """A line that says what the networks of a backbone start from, and why."""
        return choose_initial_weights(self, backbone)[1]

    def specs(self, task: str, **changes) -> list[RunSpec]:
        """As in ``PreparedCohort``; unless told otherwise, networks start from what was chosen for all."""
        if "initial_weights" not in changes:
            changes["initial_weights"] = choose_initial_weights(self, changes.get("backbone", USUAL_BACKBONE))[0]
        return super().specs(task, **changes)

    def train(self, what: str | Sequence[RunSpec], *, say: Say = print, **parts: Callable) -> list[Run]:
        """Train what is not trained yet; see ``train.execute_many``.

        Args:
            what: A task, for all its folds, or specs.
            say: Takes lines of progress.
            **parts: A ``network=``, ``loss=`` or ``augment=`` of one's own, or what to ``assemble=``; see ``spec.Own``.

        Returns:
            One finished run per fold or spec.
        """
        own = Own(**parts)
        specs = self.specs(what) if isinstance(what, str) else what
        specs = [replace(spec, own=own.name) for spec in specs] if own.name else specs
        return execute_many(specs, self, self.jobs, say, own)

    def runs(self, task: str, **changes) -> list[Run]:
        """The finished runs of a task, one per fold; a ``LusbioError`` names those that are missing.

        Where the task cannot be learnt the notebook ends.
        """
        self.check_learnable(task)
        return find_runs(self.specs(task, **changes))

    # --- results ---

    @property
    def folder(self) -> Path:
        """Where tables and figures go: ``figures/<profile>/<cohort>``."""
        return figures_folder(self.profile.name, self.cohort.name)

    def origin(self, runs: Sequence[Run] = ()) -> Shown:
        """The line that says where numbers come from; see ``origin.describe_origin``."""
        return Shown(describe_origin(self, runs))

    def record(self, runs: Sequence[Run], *, anew: bool = False) -> dict:
        """Count runs in ``run.json`` and ``timing.json``; see ``origin.record_runs``."""
        return record_runs(self, runs, self.folder, anew=anew)

    def publish(self, name: str, result, *, real_frames: bool = False) -> Shown | None:
        """Write a table (CSV, Markdown) or a figure (PNG, PDF) under a name, with title and note from ``ARTEFACTS``.

        Args:
            name: A key of ``ARTEFACTS``, or a name of one's own.
            result: A ``Table``, a data frame, or a matplotlib figure.
            real_frames: The figure holds frames of real patients: it stays in the build folder.

        Returns:
            Of a table, what its Markdown file holds, for the notebook to show.
        """
        if hasattr(result, "savefig"):
            private = build_folder(self.profile.name, self.cohort.name, "frames")
            write_figure(result, private if real_frames else self.folder, name)
            return None
        table = result if isinstance(result, Table) else Table(result)
        words = ARTEFACTS.get(name, Artefact(name.replace("_", " ").capitalize()))
        origin = self.origin(table.runs) if table.origin is None else table.origin
        shown = to_markdown(table.cells if table.shown is None else table.shown)
        parts = [f"# {words.title}", origin, shown, words.note, table.note]
        text = "\n\n".join(part for part in parts if part) + "\n"
        write_csv(table.cells, self.folder / f"{name}.csv")
        write_text(text, self.folder / f"{name}.md")
        return Shown(text.replace("# ", "### ", 1))

    def remove(self, *names: str) -> None:
        """Remove tables and figures that cannot be made any more, so that nobody takes them for new."""
        for name in names:
            for suffix in (".csv", ".md", ".png", ".pdf"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def end_here(self, reason: str, *names: str) -> None:
        """End the notebook: what its rest would make, ``names``, is removed, and ``NothingToDo`` says why."""
        self.remove(*names)
        raise NothingToDo(reason)

    def check_learnable(self, task: str, *names: str) -> None:
        """End the notebook, as with ``end_here``, where the cohort has too few labels of a task to learn it."""
        if reason := self.unlearnable.get(task):
            self.end_here(f"Nothing to do: cohort {self.cohort.name!r} cannot teach {task}: {reason}", *names)

    def open_other(self, cohort: str, *names: str) -> "Study":
        """Another cohort at the size of this one; where it is not there, the notebook ends, as with ``end_here``."""
        try:
            return open_study(self.profile.name, cohort, self.jobs)
        except CohortError as error:
            self.end_here(f"This needs the cohort {cohort}. {error}", *names)


def open_study(profile: str, cohort: str, jobs: int = 1, *, protocol: str | None = None) -> Study:
    """A cohort, decoded to the size of a profile and dealt into folds, with what trains on it and where results go.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: ``"synthetic"``, ``"synthetic_convex"``, ``"covid_blues"``, ``"pocovid"``, or a folder.
        jobs: How many trainings, fits or videos at a time.
        protocol: How patients are used, see ``cohorts.splits``; None chooses by the cohort's size.

    Raises:
        CohortError: If the cohort is not there, or not usable, or another folder has its name; says what is wrong and
            how to get it.
    """
    settings = find_profile(profile)
    loaded = load_cohort(cohort, settings, jobs)
    if loaded.name not in PUBLISHED_NAMES:
        _take_name(loaded, build_folder(settings.name, loaded.name, "folder.txt"))
    return as_study(prepare_cohort(loaded, settings, jobs, protocol), jobs)


def _take_name(cohort: Cohort, path: Path) -> None:
    """Results go by the name of a cohort's folder: keep another folder of that name from overwriting them."""
    own, known = str(cohort.folder.resolve()), path.read_text(encoding="utf-8") if path.is_file() else ""
    if known not in ("", own) and (Path(known) / TABLE_FILE).is_file():
        raise CohortError(
            own, [f"results named {cohort.name!r} are those of {known}; give one of the folders another name"]
        )
    write_text(own, path)


def as_study(prepared: PreparedCohort, jobs: int = 1) -> Study:
    """A prepared cohort as a study."""
    return Study(**{field.name: getattr(prepared, field.name) for field in fields(PreparedCohort)}, jobs=jobs)


def find_or_train(cohort: str, profile: str, jobs: int = 1, say: Say = print) -> tuple[Study, Run]:
    """The newest finished biomarker run of a cohort and profile; where there is none, a tiny one is trained.

    Args:
        cohort: Name or folder, see ``open_study``.
        profile: Name of the profile to look for.
        jobs: Videos at a time, where they are simulated or decoded.
        say: Takes lines that say which it is, and progress.

    Returns:
        The cohort as the run saw it, and the run: of the first fold where it is there, of the code at hand.

    Raises:
        CohortError: If the cohort is not there or not usable.
        NothingToDo: If no biomarker can be learnt from it.
    """
    candidates = _finished_runs(cohort, find_profile(profile).name)
    study = open_study(profile, cohort, jobs) if candidates else None
    for run in candidates:
        if (run.spec.data, run.spec.protocol) == (study.data, study.protocol):
            say(f"the network is that of run {run.folder.name}, profile {profile}")
            return study, run
    study = as_study(prepare_cohort(load_cohort(cohort, TINY, jobs), TINY, jobs), jobs)
    study.check_learnable(BIOMARKER_TASK)
    say(
        f"There is no finished biomarker run of profile {profile} for this cohort. A tiny network stands in, "
        "trained within about a minute; it has seen too little to be trusted. `make paper` trains real ones."
    )
    (run,) = study.train(study.specs(BIOMARKER_TASK, initial_weights="scratch")[:1], say=say)
    return study, run


def _finished_runs(cohort: str, profile: str) -> list[Run]:
    """The usual biomarker runs of a cohort and profile: low folds first, among equals the newest."""
    found = []
    for folder, info in find_finished(BIOMARKER_TASK):
        spec = RunSpec.from_json(info["spec"])
        usual = spec.label_fraction == spec.budget == 1 and not spec.starts_from
        if usual and spec.profile == profile and spec.cohort in (cohort, Path(cohort).name):
            found.append((spec.fold, -(folder / "run.json").stat().st_mtime, folder))
    return [load_run(folder) for _, _, folder in sorted(found)]
