"""What numbers come from: the line above every table, and the files beside it."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lusbio import __version__
from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.files import ROOT, build_folder, write_json
from lusbio.network import USUAL_BACKBONE
from lusbio.runs.plan import find_left_out
from lusbio.runs.spec import PreparedCohort, Run, RunSpec


def describe_origin(prepared: PreparedCohort, runs: Sequence[Run]) -> str:
    """The line that stands above every table and figure: what the numbers come from.

    Args:
        prepared: The cohort.
        runs: The runs behind the numbers.

    Returns:
        One line: simulated or real, cohort, videos and patients, profile, initial weights, device,
        commit.
    """
    table = prepared.cohort.table
    kind = "**Simulated** patients" if prepared.cohort.simulated else "**Real** patients"
    size = f"{len(table)} videos, {table['patient_id'].nunique()} patients"
    parts = [
        f"{kind}, cohort `{prepared.cohort.name}` ({size})",
        f"profile `{prepared.profile.name}`",
        *sorted({f"initial weights: {run.spec.initial_weights}" for run in runs if not run.spec.starts_from}),
        *sorted({f"{run.info['device']} ({run.info['precision']})" for run in runs}),
        f"commit `{find_commit()}`",
    ]
    return " · ".join(parts)


def find_commit() -> str:
    """The commit that the checkout stands at, with ``+`` when files differ from it, else the version."""

    def ask_git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        changed = ask_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!figures")
        return ask_git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"


def describe_runs(prepared: PreparedCohort, runs: Sequence[Run]) -> tuple[dict, dict]:
    """What the tables of a folder rest on, and apart from it how long that took.

    Args:
        prepared: The cohort.
        runs: All runs behind the tables.

    Returns:
        The content of ``run.json`` (no times, so that it is the same whenever it is made) and of
        ``timing.json`` (minutes by run).
    """
    table = prepared.cohort.table
    described = {
        "cohort": prepared.cohort.name,
        "simulated": prepared.cohort.simulated,
        "videos": len(table),
        "patients": int(table["patient_id"].nunique()),
        # Without the names of single videos: these files are committed for public cohorts.
        "notes": [note.split(": ")[0] for note in prepared.cohort.notes],
        "left_out": find_left_out(prepared),
        "data": prepared.data,
        "protocol": prepared.protocol,
        "profile": asdict(prepared.profile),
        "commit": find_commit(),
        "versions": runs[0].info["versions"],
    }
    return _with_runs(described, {}, runs)


def _with_runs(described: dict, timing: dict, runs: Sequence[Run]) -> tuple[dict, dict]:
    """Both files with more runs in them; a run that they have already counts once."""
    seen = {
        "devices": {run.info["device"] for run in runs},
        "precision": {run.info["precision"] for run in runs},
        "seeds": {run.spec.seed for run in runs},
    }
    united = {name: sorted(values | set(described.get(name, ()))) for name, values in seen.items()}
    weights = {run.spec.backbone: run.spec.initial_weights for run in runs if not run.spec.starts_from}
    facts = {run.folder.name: {k: run.info[k] for k in ("best_epoch", "trained_on", "masked")} for run in runs}
    united["initial_weights"] = weights | described.get("initial_weights", {})
    united["runs"] = described.get("runs", {}) | facts
    minutes = {run["run"]: run for run in timing.get("runs", [])}
    minutes |= {run.folder.name: _describe_minutes(run, described["cohort"]) for run in runs}
    total = round(sum(run["minutes"] for run in minutes.values()), 2)
    return described | united, timing | {"minutes": total, "runs": list(minutes.values())}


def _describe_minutes(run: Run, cohort: str) -> dict:
    kind, spec = describe_kind(run.spec), run.spec
    return {
        "run": run.folder.name,
        "kind": kind if spec.cohort == cohort else f"{kind}, {spec.cohort.replace('_', ' ')}",
        "task": spec.task,
        "fold": spec.fold,
        "minutes": round(run.minutes, 3),
    }


def save_provenance(prepared: PreparedCohort, runs: Sequence[Run], folder: Path) -> dict:
    """Write ``run.json`` and ``timing.json`` anew, as notebook 02 does; see ``describe_runs``.

    Args:
        prepared: The cohort.
        runs: All runs behind the tables.
        folder: Where the tables go.

    Returns:
        The content of ``timing.json``.
    """
    described, timing = describe_runs(prepared, runs)
    write_json(described, folder / "run.json")
    write_json(timing, folder / "timing.json")
    return timing


def add_runs(runs: Sequence[Run], folder: Path) -> None:
    """Count the runs of a later notebook in ``run.json`` and ``timing.json`` too; once, however often it is called.

    Args:
        runs: What the notebook trained or read besides the runs of notebook 02.
        folder: Where the tables go; does nothing where notebook 02 has written nothing.
    """
    files = folder / "run.json", folder / "timing.json"
    if not all(file.is_file() for file in files):
        return
    known = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    for content, file in zip(_with_runs(*known, runs), files, strict=True):
        write_json(content, file)


def describe_kind(spec: RunSpec) -> str:
    """What a run is in the paper, without its task and fold: a row of the list of minutes."""
    if spec.backbone != USUAL_BACKBONE:
        return f"other backbone, {spec.backbone}"
    if spec.starts_from:
        of_biomarkers = spec.task == BIOMARKER_TASK
        return "biomarker network, pretrained" if of_biomarkers else "pretrained on biomarkers"
    if spec.label_fraction < 1:
        return f"{100 * spec.label_fraction:g} % of the labels"
    return "biomarker network" if spec.task == BIOMARKER_TASK else "end-to-end"


def settle_initial_weights(
    prepared: PreparedCohort, backbone: str = USUAL_BACKBONE, say: Callable[[str], None] = print
) -> str:
    """What the networks of a profile and cohort start from; looked for once, so that all notebooks mean the same runs.

    The answer is kept in the build folder. A network that appears or goes later changes nothing; another
    file named by the environment, or ``initial_weights.json`` removed, does.

    Args:
        prepared: The cohort.
        backbone: ``USUAL_BACKBONE`` or ``OTHER_BACKBONE``.
        say: Takes a line that says which weights, and why these.

    Returns:
        A name for ``RunSpec.initial_weights``.
    """
    from lusbio.network.weights import find_initial_weights, names_a_file

    path = build_folder(prepared.profile.name, prepared.cohort.name, "initial_weights.json")
    settled = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if backbone not in settled or names_a_file(backbone):
        found = find_initial_weights(prepared.profile.initial_weights, backbone)
        settled[backbone] = {"name": found.name, "description": found.description}
        write_json(settled, path)
    say(f"{backbone}: {settled[backbone]['description']}")
    return settled[backbone]["name"]
