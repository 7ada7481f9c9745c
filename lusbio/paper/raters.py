"""People who label here: how far raters agree with each other and with themselves. Numbers x 100."""

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lusbio.files import Table, build_folder
from lusbio.labelling.ratings import RatingLog, choose_order, read_ratings
from lusbio.report.cells import format_value, measure_cells, widen
from lusbio.runs.study import Study
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import SPECIALIST, TRAINEE, rate_biomarkers, rate_severity
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import rater_agreement
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKER_GROUPS, BIOMARKERS, SEVERITY, TASKS, group_names

COLUMNS = ["raters", "item", "metric", "videos", "value", "low", "high"]

UNORDERED = ("B-line origin",)
"""The groups whose options do not go from less to more; flags are yes or no."""

SECOND_LOOK = 10
"""Added to a simulated rater's stream of random numbers when a video comes back: the same habits, other luck."""


def open_ratings(study: Study) -> pd.DataFrame:
    """The ratings in ``ratings/`` of the cohort's folder, as from ``read_ratings``.

    Where patients are simulated and nobody has labelled, the simulator's trainee and specialist do, through the same
    log, into the build folder.
    """
    folder, parameters = study.cohort.folder / "ratings", study.cohort.folder / "simulation.json"
    if not folder.is_dir() and parameters.is_file():
        made = json.loads(parameters.read_text(encoding="utf-8"))
        folder = build_folder(study.profile.name, study.cohort.name, "ratings")
        shutil.rmtree(folder, ignore_errors=True)
        recordings = {r.video_id: r for r in simulate_recordings(made["patients"], made["seed"], made["probe"])}
        content = dict(zip(study.table["video_id"], (video.sha256 for video in study.videos), strict=True))
        for role, rater in {"trainee": TRAINEE, "specialist": SPECIALIST}.items():
            log = RatingLog(folder, f"simulated_{role}", new_rater=True, role=role)
            ratings = []
            for position, (video, repeat) in enumerate(choose_order(list(content), log.rater), start=1):
                looks = rater._replace(purpose=rater.purpose + SECOND_LOOK * repeat)
                bits = {name: int(bit) for name, bit in rate_biomarkers(recordings[video], looks).items()}
                rating = {"position": position, "video_id": video, "sha256": content[video], "repeat": repeat}
                rating |= {"usable": True, SEVERITY: rate_severity(recordings[video], looks), "biomarkers": bits}
                ratings.append(rating | {"seconds": None, "comment": ""})
            log.append(*ratings)
    return read_ratings(folder)


def list_items() -> list[tuple[str, tuple[str, ...], bool]]:
    """What raters are compared on: title, columns of a rating, and whether its answers go from less to more."""
    groups = []
    for group in BIOMARKER_GROUPS:
        chosen = tuple(name for name in group_names(group) if name not in BIOMARKER_FLAGS)
        groups.append((group, chosen, group not in UNORDERED))
        flags = [b for b in BIOMARKERS if b.name in BIOMARKER_FLAGS and b.group == group]
        groups += [(f"{group}: {flag.option}", (flag.name,), False) for flag in flags]
    return [*groups, (TASKS[SEVERITY].title, (SEVERITY,), True)]


def code_answers(ratings: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The answers of one item as class indices, int64 (V,); -1: unsure, or the video is not usable."""
    values = ratings[list(columns)].astype(float).to_numpy()
    classes = values.argmax(axis=1) if len(columns) > 1 else np.nan_to_num(values[:, 0], nan=-1).astype(int)
    return np.where(np.isnan(values).any(axis=1), -1, classes)


def make_raters_table(ratings: pd.DataFrame, study: Study) -> Table:
    """How far people agree who label here, with each other and with themselves.

    Args:
        ratings: From ``open_ratings``; those of a consensus, which was not blinded, are left out.
        study: The cohort.

    Returns:
        Lines ``raters, item, metric, videos, value, low, high``, x 100: of two raters, and of one who saw videos again,
        ``agreement`` and ``kappa`` or, of ordered answers, ``quadratic_kappa``; of one rater ``unsure``, percent of the
        usable videos. No line where nobody has labelled.
    """
    blinded = ratings[ratings["blinded"].astype(bool)]
    looks = {key: part.set_index("video_id") for key, part in blinded.groupby(["rater", "repeat"], sort=False)}
    firsts = {rater: part for (rater, repeat), part in looks.items() if not repeat}
    pairs = {f"{a} and {b}": (firsts[a], firsts[b]) for a, b in combinations(firsts, 2)}
    pairs |= {f"{rater} again": (firsts[rater], looks[rater, 1]) for rater in firsts if (rater, 1) in looks}
    groups = study.table.set_index("video_id")["group_id"]
    parts = [_compare_raters({"raters": name}, pair, groups, study.draws) for name, pair in pairs.items()]
    parts.append(pd.DataFrame([line for rater, part in firsts.items() for line in _count_unsure(rater, part)]))
    parts = [part for part in parts if len(part)] or [pd.DataFrame()]
    cells = pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)
    note = "Nobody has labelled here: `lusbio label FOLDER --rater r1 --new-rater` begins."
    if firsts:
        note = "Videos: " + "; ".join(f"{name} {len(set(a.index) & set(b.index))}" for name, (a, b) in pairs.items())
    return Table(cells, _widen_raters(cells), f"{note}.".replace("..", "."))


def _compare_raters(names: dict, pair: tuple[pd.DataFrame, ...], groups: pd.Series, draws: int) -> pd.DataFrame:
    both = pair[0].index.intersection(pair[1].index).intersection(groups.index)
    found = []
    for item, columns, ordered in list_items():
        first, second = (code_answers(part.loc[both], columns) for part in pair)
        known, metrics = (first >= 0) & (second >= 0), ["agreement", "quadratic_kappa" if ordered else "kappa"]
        run = HeldOut(first[known], second[known], groups.loc[both].to_numpy()[known])
        if known.any():
            cells = measure_cells(
                [(names | {"item": item, "videos": known.sum()}, [run])], draws, rater_agreement, metrics
            )
            found.append(cells.rename(columns={"mean": "value", "ci_low": "low", "ci_high": "high"}).drop(columns="sd"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _count_unsure(rater: str, first: pd.DataFrame) -> Iterator[dict]:
    usable = first[first["usable"].astype(bool)]
    for item, columns, _ in list_items() if len(usable) else []:
        share = 100 * (code_answers(usable, columns) < 0).mean()
        yield {"raters": rater, "item": item, "metric": "unsure", "videos": len(usable), "value": share}


def _widen_raters(cells: pd.DataFrame) -> pd.DataFrame:
    """A row per item; the kappa of ordered answers is the quadratic one."""
    titles = {"agreement": "same answer (%)", "unsure": "unsure (%)"}
    return widen(
        cells,
        ["item"],
        lambda cell: format_value(cell["value"], cell["low"], cell["high"]),
        lambda cell: f"{cell['raters']}: {titles.get(cell['metric'], 'kappa x 100')}",
    )


def describe_raters(ratings: pd.DataFrame, study: Study) -> str:
    """What a reader has to know of the raters and of how they rated, by item of GRRAS.

    Source: Kottner et al. 2011, "Guidelines for reporting reliability and agreement studies", items 6, 8, 9 and 11-13.
    """
    blinded = ratings[ratings["blinded"].astype(bool)]
    if blinded.empty:
        return "Nobody has labelled here, so there is nothing to report."
    videos, patients = (study.table[name].nunique() for name in ("video_id", "patient_id"))
    simulated = study.cohort.simulated and blinded["seconds"].isna().all()
    lines = [
        f"- Sample (items 6, 11): {videos} videos of {patients} patients, all of the cohort; no size was calculated.",
        f"- Raters and replicates (items 11, 12){', all of it simulated' if simulated else ''}:",
        *(f"  - {rater}: {_describe_rater(own, videos)}" for rater, own in blinded.groupby("rater", sort=False)),
        "- Rating (item 8): blinded to patient, file, other columns, raters and models; in an order of one's own; what "
        "came back was not marked.",
        "- Independence (item 9): no rater saw another one's answers, and no answer was suggested.",
        "- Estimates (item 13): the table, with 95 % intervals over groups of patients.",
    ]
    return "\n".join(lines)


def _describe_rater(own: pd.DataFrame, videos: int) -> str:
    first, again = (own[own["repeat"] == repeat].set_index("video_id") for repeat in (0, 1))
    hours = (again["at"] - first["at"].reindex(again.index)).dt.total_seconds().median() / 3600
    seconds, unusable = first["seconds"].median(), (~first["usable"].astype(bool)).sum()
    facts = [own["role"].iloc[-1], own["experience"].iloc[-1] or "experience not said"]
    facts += [f"{len(first)} of {videos} videos", f"{unusable} not usable", f"{len(again)} rated again"]
    if not np.isnan(seconds):
        facts += [f"{hours:.1f} hours later (median)"] * bool(len(again)) + [f"{seconds:.0f} s a video (median)"]
    return ", ".join(filter(None, facts))
