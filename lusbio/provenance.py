"""What numbers come from: the line above every table, and the files beside it."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict

from lusbio import __version__, paths
from lusbio.files import write_json
from lusbio.labels import BIOMARKER_TASK
from lusbio.models import USUAL_BACKBONE
from lusbio.paths import build_folder
from lusbio.runs import PreparedCohort, Run, RunSpec


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
        command = ["git", "-C", str(paths.ROOT), *arguments]
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
        "data": prepared.data,
        "protocol": prepared.protocol,
        "profile": asdict(prepared.profile),
        "commit": find_commit(),
        "devices": sorted({run.info["device"] for run in runs}),
        "precision": sorted({run.info["precision"] for run in runs}),
        "initial_weights": {
            run.spec.backbone: run.spec.initial_weights for run in runs if not run.spec.starts_from
        },
        "seeds": sorted({run.spec.seed for run in runs}),
        "versions": runs[0].info["versions"],
        "runs": {
            run.folder.name: {k: run.info[k] for k in ("best_epoch", "trained_on", "masked")} for run in runs
        },
    }
    minutes = [
        {
            "run": run.folder.name,
            "kind": describe_kind(run.spec),
            "task": run.spec.task,
            "fold": run.spec.fold,
            "minutes": round(run.minutes, 3),
        }
        for run in runs
    ]
    return described, {"minutes": round(sum(run.minutes for run in runs), 2), "runs": minutes}


def describe_kind(spec: RunSpec) -> str:
    """What a run is in the paper, without its task and fold: a row of the list of minutes."""
    if spec.backbone != USUAL_BACKBONE:
        return f"other backbone, {spec.backbone}"
    if spec.starts_from:
        return "pretrained on biomarkers"
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
    from lusbio.models.weights import find_initial_weights, names_a_file

    path = build_folder(prepared.profile.name, prepared.cohort.name, "initial_weights.json")
    settled = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if backbone not in settled or names_a_file(backbone):
        found = find_initial_weights(prepared.profile.initial_weights, backbone)
        settled[backbone] = {"name": found.name, "description": found.description}
        write_json(settled, path)
    say(f"{backbone}: {settled[backbone]['description']}")
    return settled[backbone]["name"]
