"""What numbers come from: the line above every table, and the files beside it."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lusbio import __version__
from lusbio.files import ROOT, build_folder, write_json, write_text
from lusbio.network import USUAL_BACKBONE
from lusbio.runs.plan import find_left_out
from lusbio.runs.spec import PreparedCohort, Run

FITTING_WIDTH = 64
"""The width of a ``TSMResNet18`` that torchvision's files are for."""


def describe_origin(prepared: PreparedCohort, runs: Sequence[Run]) -> str:
    """The line that stands above every table and figure: what the numbers come from.

    Simulated or real, cohort, videos and patients, how many of the published videos that is, profile, initial weights
    and device of the runs, commit.
    """
    table = prepared.table
    kind = "**Simulated** patients" if prepared.cohort.simulated else "**Real** patients"
    patients, groups = table["patient_id"].nunique(), table["group_id"].nunique()
    units = f"{patients} patients" if groups == patients else f"{groups} groups that may show one person each"
    size = f"{len(table)} videos, {units}"
    known = f"{kind}, cohort `{prepared.cohort.name}` ({size})", *prepared.cohort.present
    return " · ".join([*known, *describe_making(prepared, runs)])


def describe_making(prepared: PreparedCohort, runs: Sequence[Run]) -> list[str]:
    """How numbers were made, as parts of a line: profile, initial weights and device of the runs, commit."""
    return [
        f"profile `{prepared.profile.name}`",
        *sorted({f"initial weights: {run.spec.initial_weights}" for run in runs if not run.spec.starts_from}),
        *sorted({f"{run.info['device']} ({run.info['precision']})" for run in runs}),
        f"commit `{find_commit()}`",
    ]


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


def record_runs(prepared: PreparedCohort, runs: Sequence[Run], folder: Path, *, anew: bool = False) -> dict:
    """Write what the tables of a folder rest on, ``run.json``, and apart from it how long that took, ``timing.json``.

    Args:
        prepared: The cohort.
        runs: Finished runs; one that is recorded already counts once.
        folder: Where the tables go.
        anew: Forget what was recorded before, as notebook 02 does, which makes all runs but those of later notebooks.
            Their names go into ``runs.txt`` of the build folder too, so that make misses one that is removed.

    Returns:
        The content of ``timing.json``: minutes by run. ``run.json`` holds no times, so that it is the same whenever it
        is made. Where notebook 02 has recorded nothing, later ones record nothing.
    """
    files = folder / "run.json", folder / "timing.json"
    if anew:
        known = _describe_cohort(prepared, runs), {}
        names = "".join(f"{run.folder.name}\n" for run in runs)
        write_text(names, build_folder(prepared.profile.name, prepared.cohort.name, "runs.txt"))
    elif all(file.is_file() for file in files):
        known = tuple(json.loads(file.read_text(encoding="utf-8")) for file in files)
    else:
        return {}
    contents = _with_runs(*known, runs)
    for content, file in zip(contents, files, strict=True):
        write_json(content, file)
    return contents[1]


def _describe_cohort(prepared: PreparedCohort, runs: Sequence[Run]) -> dict:
    return {
        "cohort": prepared.cohort.name,
        "simulated": prepared.cohort.simulated,
        "videos": len(prepared.table),
        "patients": int(prepared.table["patient_id"].nunique()),
        # Without the names of single videos: these files are committed for public cohorts.
        "notes": [note.split(": ")[0] for note in prepared.cohort.notes],
        "left_out": find_left_out(prepared),
        "data": prepared.data,
        "protocol": prepared.protocol,
        "profile": asdict(prepared.profile),
        "commit": find_commit(),
        "versions": runs[0].info["versions"],
    }


def _with_runs(described: dict, timing: dict, runs: Sequence[Run]) -> tuple[dict, dict]:
    """Both files with more runs in them."""
    seen = {
        "devices": {run.info["device"] for run in runs},
        "precision": {run.info["precision"] for run in runs},
        "seeds": {run.spec.seed for run in runs},
    }
    united = {name: sorted(values | set(described.get(name, ()))) for name, values in seen.items()}
    weights = {run.spec.backbone: run.spec.initial_weights for run in runs if not run.spec.starts_from}
    facts = {run.folder.name: {k: run.info[k] for k in ("kept_epoch", "trained_on", "masked")} for run in runs}
    united["initial_weights"] = weights | described.get("initial_weights", {})
    united["runs"] = described.get("runs", {}) | facts
    minutes = {run["run"]: run for run in timing.get("runs", [])}
    minutes |= {run.folder.name: _describe_minutes(run, described["cohort"]) for run in runs}
    total = round(sum(run["minutes"] for run in minutes.values()), 2)
    return described | united, timing | {"minutes": total, "runs": list(minutes.values())}


def _describe_minutes(run: Run, cohort: str) -> dict:
    spec = run.spec
    elsewhere = "" if spec.cohort == cohort else f", {spec.cohort.replace('_', ' ')}"
    known = {"run": run.folder.name, "kind": spec.kind + elsewhere, "task": spec.task, "fold": spec.fold}
    return known | {"minutes": round(run.minutes, 3)}


def choose_initial_weights(prepared: PreparedCohort, backbone: str = USUAL_BACKBONE) -> tuple[str, str]:
    """What the networks of a profile and cohort start from; looked for once, so that all notebooks mean the same runs.

    The answer is kept in the build folder. A network that appears or goes later changes nothing; another file named by
    the environment, or ``initial_weights.json`` removed, does.

    Returns:
        A name for ``RunSpec.initial_weights``, and a line that says which weights, and why these.
    """
    from lusbio.network.weights import SCRATCH, find_initial_weights, names_a_file

    width = prepared.profile.training.width
    if backbone == USUAL_BACKBONE and width != FITTING_WIDTH and prepared.profile.initial_weights != SCRATCH:
        reason = f"files of ImageNet weights are for WIDTH={FITTING_WIDTH}, and this network is {width} channels wide"
        return SCRATCH, f"{backbone}: from scratch; {reason}"
    path = build_folder(prepared.profile.name, prepared.cohort.name, "initial_weights.json")
    chosen = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if backbone not in chosen or names_a_file(backbone):
        found = find_initial_weights(prepared.profile.initial_weights, backbone)
        chosen[backbone] = {"name": found.name, "description": found.description}
        write_json(chosen, path)
    return chosen[backbone]["name"], f"{backbone}: {chosen[backbone]['description']}"
