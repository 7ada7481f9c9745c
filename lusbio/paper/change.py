"""Change within a patient, learnt from differences between patients: notebook 12, after LEARNER (arXiv 2411.01144).

Of that paper the text names the idea and the claims. What is known of a pair comes from networks that saw single scans;
a logistic regression says worse, the same or better.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lusbio.cohorts import covid_blues
from lusbio.cohorts.load import EXAMS, EXAMS_OF
from lusbio.cohorts.pairs import pair_exams, pair_mirrors
from lusbio.experts.baselines import pool_pixels
from lusbio.experts.changes import Units, count_units, decide_by_frequency, decide_by_score, decide_change
from lusbio.experts.inputs import expert_input
from lusbio.experts.signs import take_signs
from lusbio.files import Table, read_words
from lusbio.profiles import TrainingSettings
from lusbio.report.cells import format_value, measure_cells, say_cell, subtract_cells, widen
from lusbio.report.compare import explain_verdict, judge_claim
from lusbio.runs.parallel import side_by_side
from lusbio.runs.spec import Run, RunSpec
from lusbio.runs.study import Study, open_study
from lusbio.statistics.bootstrap import HeldOut, describe_draws, draw_means, estimate, holm
from lusbio.statistics.change import change_metrics, classify_change, rank_correlation
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, BIOMARKER_TASK, BIOMARKERS, SEVERITY

WORDS = read_words("change.toml")
ROWS, CLAIMS, SIZES = WORDS["rows"], WORDS["claims"], WORDS["sizes"]
METHODS = ("mse", "contrastive", "weighted")
UNITS = ("patient", "pair")

JUDGED = "macro_f1"
"""What the first two claims are judged by; named beforehand."""

MADE = ("change", "change_differences", "change_distance", "change_verdict", "change_thresholds", "change_patient")
"""What the notebook publishes, in its order."""


class Health(NamedTuple):
    """A column that says how a patient is; see ``words/change.toml``."""

    title: str
    sign: int
    threshold: float
    thresholds: tuple[float, ...]
    unit: str


HEALTH = {column: Health(**words) for column, words in WORDS["health"].items()}


# --- who is compared ---


@dataclass(frozen=True)
class Changes:
    """A cohort whose patients can be compared with themselves.

    Attributes:
        study: The cohort, in five folds that are all tested.
        home: Where results go; the study itself, but for the default cohort, whose second exams are a cohort apart.
        pairs: From ``cohorts.pairs``.
        mirrored: Whether they are left and right instead of earlier and later.
    """

    study: Study
    home: Study
    pairs: pd.DataFrame
    mirrored: bool

    @cached_property
    def columns(self) -> list[str]:
        """Which of ``HEALTH`` change within pairs, in two classes at least."""
        return [column for column in HEALTH if (self.count(column) > 0).sum() > 1]

    def health(self, column: str) -> np.ndarray:
        """A column of ``HEALTH`` as health: float64 (V,), more is healthier, NaN where unknown."""
        return HEALTH[column].sign * pd.to_numeric(self.study.table[column]).to_numpy(np.float64)

    def subtract(self, values: np.ndarray) -> np.ndarray:
        """What is known of the later video minus the same of the earlier one: (V, ...) -> (P, ...)."""
        return values[self.pairs["later"]] - values[self.pairs["earlier"]]

    def count(self, column: str) -> np.ndarray:
        """Pairs that are worse, the same and better: int (3,)."""
        change = self.subtract(self.health(column))
        classes = classify_change(change[~np.isnan(change)], HEALTH[column].threshold)
        return np.bincount(classes.astype(int), minlength=3)

    def units(self, column: str, fold: int, unit: str) -> Units:
        """Pairs or patients of a fold whose change of health is known."""
        splits, groups = self.study.splits(fold).to_numpy()[self.pairs["earlier"]], self.pairs["group"].to_numpy()
        return count_units(self.subtract(self.health(column)), groups, splits, by_patient=unit == "patient")

    def folds(self, column: str) -> range:
        """The folds in which a column is learnt."""
        size = SIZES[self.study.profile.name]
        return range(size["folds"][column] if self.study.cohort.simulated else size["real_folds"])

    def describe(self) -> str:
        """How many pairs, by class, and what was left out, as lines of Markdown."""
        what = "left and right of one place at one visit, not two exams; worse: the right side is"
        what = what if self.mirrored else "two exams of one place"
        single = len(self.study.table) - len(set(self.pairs[["earlier", "later"]].to_numpy().ravel()))
        lines = [f"{len(self.pairs)} pairs of {self.pairs['group'].nunique()} patients: {what}; {single} videos alone."]
        for column in self.columns:
            worse, same, better = self.count(column)
            told, unknown = f"worse {worse}, same {same}, better {better}", len(self.pairs) - worse - same - better
            lines.append(f"{HEALTH[column].title}: {told}; {unknown} unknown on a side, left out.")
        return "\n".join(f"- {line}" for line in lines)


def open_changes(profile: str, cohort: str, jobs: int = 1) -> Changes:
    """A cohort and its pairs; where nobody can be compared with themselves, the notebook ends.

    Of the default cohort, second exams are simulated. The public real cohort has one visit: its pairs are mirrored.
    """
    home = open_study(profile, cohort, jobs, protocol="cross")
    study = open_study(profile, EXAMS, jobs, protocol="cross") if cohort == EXAMS_OF else home
    mirrored = cohort == covid_blues.NAME
    pairs = pair_mirrors(study.table) if mirrored else pair_exams(study.table)
    changes = Changes(study, home, pairs, mirrored)
    if not changes.columns:
        found = f"{len(pairs)} pairs of exams, and neither {' nor '.join(HEALTH)} changes within them"
        advice = "A column `exam` (1, 2, ...) makes pairs."
        home.end_here(f"Nothing to compare in cohort {cohort!r}: {found}. {advice}", *MADE)
    return changes


# --- what is known of them ---


def list_trainings(changes: Changes) -> tuple[list[RunSpec], list[RunSpec]]:
    """The networks that learn a score from single scans, by column, method and fold; and the biomarker networks."""
    study = changes.study
    specs = [spec for column in changes.columns for method in METHODS for spec in _specs(changes, column, method)]
    usual = replace(_settings(study), batch_size=study.profile.training.batch_size)
    biomarkers = [] if BIOMARKER_TASK in study.unlearnable else study.specs(BIOMARKER_TASK, training=usual, seed=0)
    return specs, biomarkers[: max(len(changes.folds(column)) for column in changes.columns)]


def _settings(study: Study) -> TrainingSettings:
    return replace(study.profile.training, **SIZES[study.profile.name]["training"])


def _specs(changes: Changes, column: str, method: str) -> list[RunSpec]:
    study = changes.study
    known = {"training": _settings(study), "outputs": ("score",), "initial_weights": "scratch", "seed": 0}
    return study.specs(f"{column}_{method}", **known)[: len(changes.folds(column))]


def train_on_pairs(changes: Changes) -> list[Run]:
    """Networks that learn the change itself from pairs, end to end; of smaller profiles than the paper's, none."""
    from lusbio.network import learner

    runs = []
    for column in changes.columns if SIZES[changes.study.profile.name]["pairs"] else ():
        known = changes.pairs[~np.isnan(changes.subtract(changes.health(column)))]
        pairs = tuple(known[["earlier", "later"]].itertuples(index=False, name=None))
        assemble = learner.train_on_pairs(pairs, HEALTH[column].threshold)
        runs += changes.study.train(_specs(changes, column, "pairs"), assemble=assemble)
    return runs


Known = dict[tuple[str, int], dict[str, np.ndarray]]
"""What differences are taken of, (V, F), by column and fold, and by the name of the row."""


def gather(changes: Changes, scores: Sequence[Run], biomarkers: Sequence[Run]) -> Known:
    """Features, scores and biomarkers from the networks; pixels and signs; and of simulated patients the truth.

    Signs are on the scale of their ranks in the cohort, in the middle where there is nothing to measure.
    """
    study = changes.study
    pixels = pool_pixels(study.cohort.video_paths(), study.jobs)[0].mean(axis=1).reshape(len(study.table), -1)
    signs = pd.DataFrame(take_signs(study, study.jobs)).rank(pct=True).fillna(0.5)
    common = {"signs": signs.to_numpy(), "pixels": pixels}
    if study.cohort.truth is not None:
        truth = study.cohort.truth.set_index("video_id").loc[study.table["video_id"]].astype({SEVERITY: float})
        asked = {"true_biomarkers": list(BIOMARKER_NAMES), "true_severity": [SEVERITY]}
        common |= {row: truth[names].to_numpy() for row, names in asked.items()}
    known: Known = {(column, fold): dict(common) for column in changes.columns for fold in changes.folds(column)}
    for run, key in ((run, key) for run in biomarkers for key in known if key[1] == run.spec.fold):
        known[key]["biomarkers"] = expert_input(run)
    for run in scores:
        column, method = run.spec.task.rsplit("_", 1)
        said = HEALTH[column].sign * run.probabilities
        known[column, run.spec.fold] |= {method: run.features.astype(np.float64), f"{method}_score": said}
    return known


class Decided(NamedTuple):
    """One way to decide, over all folds: a row of the table."""

    health: str
    unit: str
    threshold: float
    row: str
    held_out: tuple[HeldOut, ...]

    @property
    def usual(self) -> bool:
        """Whether what counts as the same is what the claims are about."""
        return self.threshold == HEALTH[self.health].threshold


def decide_all(changes: Changes, known: Known) -> list[Decided]:
    """All rows, in the order of ``ROWS``; other thresholds only for the unit of the claims, if two classes are left."""
    asked = [(column, unit, HEALTH[column].threshold) for column in changes.columns for unit in UNITS]
    others = [(c, HEALTH[c].unit, t) for c in changes.columns for t in HEALTH[c].thresholds if t != HEALTH[c].threshold]
    asked += [which for which in others if _teaches(changes, *which)]
    work = [(which, key) for which in asked for key in known if key[0] == which[0]]
    done = side_by_side(
        _decide_fold, [(changes, known[key], key[1], *which) for which, key in work], changes.study.jobs
    )
    rows = []
    for which in asked:
        folds = [found for (of, _), found in zip(work, done, strict=True) if of == which]
        rows += [Decided(*which, row, tuple(fold[row] for fold in folds)) for row in ROWS if row in folds[0]]
    return rows


def _teaches(changes: Changes, column: str, unit: str, threshold: float) -> bool:
    """Whether there are two classes among the training units of every fold."""
    folds = [changes.units(column, fold, unit) for fold in changes.folds(column)]
    return all(len(set(classify_change(u.change[u.splits == "train"], threshold))) > 1 for u in folds)


def _decide_fold(
    changes: Changes, values: dict, fold: int, column: str, unit: str, threshold: float
) -> dict[str, HeldOut]:
    units = changes.units(column, fold, unit)
    differences = {row: units.average(changes.subtract(of_row)) for row, of_row in values.items()}
    found = {}
    for row, different in differences.items():
        decide = decide_by_score if row.endswith("_score") else decide_change
        found[row] = decide(different, units, threshold)
    found["shuffled"] = decide_change(differences["weighted"], units, threshold, shuffled=True)
    return found | {"majority": decide_by_frequency(units, threshold)}


# --- tables ---


def make_change(rows: Sequence[Decided], changes: Changes, runs: Sequence[Run]) -> Table:
    """How well change is detected by every row; other thresholds stand in the cells only."""
    named = [(row._asdict(), row.held_out) for row in rows]
    cells = measure_cells(named, changes.study.draws, change_metrics).drop(columns="held_out")
    usual = cells["threshold"] == cells["health"].map(lambda column: HEALTH[column].threshold)
    shown = widen(_say_names(cells[usual]), ["health", "unit", "row"], heading=_head)
    return Table(cells, shown, changes.describe(), changes.study.origin(runs), tuple(runs))


def _head(cell: pd.Series) -> str:
    return WORDS["metrics"][cell["metric"]]


def _say_names(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with health and row in words."""
    said = {"health": {c: h.title for c, h in HEALTH.items()}, "row": {row: words for row, (words, _) in ROWS.items()}}
    return cells.replace({name: of for name, of in said.items() if name in cells})


COMPARED = (
    *(("contrastive", "mse"), ("weighted", "contrastive"), ("weighted", "mse")),
    *(("biomarkers", "weighted"), ("signs", "weighted")),
    *(("weighted", "pixels"), ("biomarkers", "pixels"), ("signs", "pixels")),
)
"""What is subtracted from what. The first two are claims; biomarkers and signs are this project's question."""


def make_differences(rows: Sequence[Decided], changes: Changes, runs: Sequence[Run]) -> Table:
    """Rows minus rows, paired over patients, at the first threshold; ``claim`` where the paper says something of it."""
    found = {(row.health, row.unit, row.row): row.held_out for row in rows if row.usual}
    pairs = []
    for health, unit in dict.fromkeys(key[:2] for key in found):
        for first, second in COMPARED:
            both = [found.get((health, unit, row)) for row in (first, second)]
            if all(both):
                pairs.append(({"health": health, "unit": unit, "first": first, "second": second}, *both))
    cells = subtract_cells(pairs, changes.study.draws, change_metrics, ["accuracy", "macro_f1", "auc", "spearman"])
    cells.insert(4, "claim", [_find_claim(cell) for cell in cells.itertuples()])
    said = _say_names(cells.assign(row=cells["first"])).rename(columns={"row": "more"})
    said["minus"] = _say_names(cells.assign(row=cells["second"]))["row"]
    shown = widen(said, ["health", "unit", "more", "minus"], _format_difference, _head)
    return Table(cells, shown, origin=changes.study.origin(runs), runs=tuple(runs))


def _find_claim(cell: tuple) -> str:
    names = {(claim["first"], claim.get("second")): name for name, claim in CLAIMS.items()}
    judged = cell.metric == JUDGED and cell.unit == HEALTH[cell.health].unit
    return names.get((cell.first, cell.second), "") if judged else ""


def _format_difference(cell: pd.Series) -> str:
    text = format_value(cell["mean"], cell["ci_low"], cell["ci_high"], sign="+")
    return f"{text}, {cell['claim']}" if cell["claim"] else text


def measure_distances(changes: Changes, known: Known) -> pd.DataFrame:
    """Cosine distance of the features of both videos, of every test pair and network.

    Columns ``health, fold, row, group, change`` (absolute), ``distance`` (0 to 2).
    """
    parts = []
    for (column, fold), values in known.items():
        units = changes.units(column, fold, "pair")
        test, pairs = units.splits == "test", changes.pairs[units.of_pair >= 0]
        for row in METHODS:
            first, second = (values[row][pairs[side]] for side in ("earlier", "later"))
            lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            distance = 1 - (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
            measured = {"group": units.groups, "change": np.abs(units.change), "distance": distance}
            parts.append(pd.DataFrame({"health": column, "fold": fold, "row": row, **measured})[test])
    return pd.concat(parts, ignore_index=True)


SPREAD = ("median_distance", "nine_of_ten_below", "largest_distance")


def make_distance(distances: pd.DataFrame, changes: Changes, runs: Sequence[Run]) -> Table:
    """Whether the distance follows the size of the change, by pairs and by patients, and how large distances are."""
    lines = []
    for (health, row), of_row in distances.groupby(["health", "row"], sort=False):
        for unit in UNITS:
            held_out = list(_hold_distances(of_row, unit))
            found = estimate(held_out, changes.study.draws, rank_correlation)["spearman"]
            drawn = draw_means(held_out, changes.study.draws, rank_correlation)["spearman"]
            *_, p_value = describe_draws(drawn)
            claimed = row == CLAIMS["L3"]["first"] and unit == HEALTH[health].unit
            quantiles = dict(zip(SPREAD, of_row["distance"].quantile([0.5, 0.9, 1]), strict=True))
            names = {"health": health, "unit": unit, "row": row, "claim": "L3" if claimed else "", "metric": "spearman"}
            percent = {"mean": 100 * found.value, "ci_low": 100 * found.low, "ci_high": 100 * found.high}
            lines.append(names | percent | {"p_value": p_value} | quantiles)
    cells = pd.DataFrame(lines)
    said = _say_names(cells)
    shown = said[["health", "unit", "row"]].assign(
        Spearman=[format_value(*cell) for cell in cells[["mean", "ci_low", "ci_high"]].to_numpy()],
        **{name.replace("_", " "): [f"{value:.3f}" for value in cells[name]] for name in SPREAD},
    )
    return Table(cells, shown, origin=changes.study.origin(runs), runs=tuple(runs))


def _hold_distances(distances: pd.DataFrame, unit: str) -> Iterator[HeldOut]:
    for _, fold in distances.groupby("fold"):
        if unit == "patient":
            fold = fold.groupby("group", as_index=False)[["change", "distance"]].mean()
        yield HeldOut(fold["change"].to_numpy(), fold["distance"].to_numpy(), fold["group"].to_numpy())


def find_chance(changes: Changes, scores: Sequence[Run]) -> set[tuple[str, str]]:
    """Columns and methods whose scores are not above chance on their own validation patients, by Spearman."""
    chance, groups = set(), changes.study.table["group_id"].to_numpy()
    for column in changes.columns:
        for method in METHODS:
            validated = []
            for run in (run for run in scores if run.spec.task == f"{column}_{method}"):
                said, health = HEALTH[column].sign * run.probabilities[:, 0], changes.health(column)
                rows = (run.splits == "val") & ~np.isnan(health)
                validated.append(HeldOut(health[rows], said[rows], groups[rows]))
            if not estimate(validated, changes.study.draws, rank_correlation)["spearman"].low > 0:
                chance.add((column, method))
    return chance


def give_verdicts(differences: Table, distance: Table, chance: set[tuple[str, str]]) -> Table:
    """The three claims, score by score, whichever way they go; p is corrected over all of them (Holm)."""
    cells = pd.concat([table.cells[table.cells["claim"] != ""] for table in (differences, distance)], ignore_index=True)
    cells = cells.assign(first=cells["first"].fillna(cells["row"]), p_holm=holm(cells["p_value"]))
    lines = []
    for cell in cells.sort_values("claim", kind="stable").itertuples():
        claim = CLAIMS[cell.claim]
        networks = {(cell.health, claim[part]) for part in ("first", "second") if part in claim}
        verdict = judge_claim(cell.mean, cell.p_holm, chance=bool(networks & chance))
        what = f"{HEALTH[cell.health].title}, by {cell.unit}"
        measured = WORDS["metrics"][cell.metric] + " difference" * ("second" in claim)
        number = f"{measured} {say_cell(cell, sign='+')}, Holm-corrected p {format_value(cell.p_holm, decimals=3)}"
        sentence = f"{claim['words'].capitalize()}: {number}. "
        sentence += f"{verdict.capitalize()}: {explain_verdict(verdict)}."
        lines.append((cell.claim, cell.health, cell.unit, verdict, cell.p_holm, what, sentence))
    found = pd.DataFrame(lines, columns=["claim", "health", "unit", "verdict", "p_holm", "of", "sentence"])
    return Table(found, found[["claim", "of", "verdict", "sentence"]], "", differences.origin, differences.runs)


def describe_biomarkers(differences: pd.DataFrame) -> list[str]:
    """Whether generic biomarkers and signs carry change as well as features trained for it, a sentence each."""
    told = []
    asked = differences[differences["first"].isin(["biomarkers", "signs"]) & (differences["metric"] == "spearman")]
    for cell in asked.itertuples():
        if cell.unit == HEALTH[cell.health].unit:
            other = ROWS[cell.second][0].removeprefix("baseline: ")
            side = "above" if cell.ci_low > 0 else "below" if cell.ci_high < 0 else "not told apart from"
            who = f"{HEALTH[cell.health].title}, by {cell.unit}"
            told.append(f"{who}: {ROWS[cell.first][0]} are {side} {other}, Spearman {say_cell(cell, sign='+')}.")
    return told


# --- figures ---


def draw_patient(changes: Changes, places: int = 4) -> Figure:
    """One simulated test patient over two exams: a frame per place and exam, S/F, and what changed in words.

    It is the one whose S/F changed most among those with at least two and at most so many places. Real patients are not
    shown: there the notebook ends.
    """
    import matplotlib.pyplot as plt

    study, pairs = changes.study, changes.pairs
    if study.cohort.truth is None or changes.mirrored:
        changes.home.end_here("The picture of one patient is of simulated patients only.", "change_patient")
    sizes = pairs.groupby("group").size()
    size = pd.Series(np.abs(changes.subtract(changes.health("sf_value")))).groupby(pairs["group"]).mean()
    chosen = size[sizes.between(2, places)].idxmax()
    shown, table = pairs[pairs["group"] == chosen], study.table
    truth = study.cohort.truth.set_index("video_id").loc[table["video_id"]].reset_index()
    fig, axes = plt.subplots(2, len(shown), figsize=(2.9 * len(shown), 6.2), layout="constrained", squeeze=False)
    for pair, both in zip(shown.itertuples(), axes.T, strict=True):
        for number, (row, ax) in enumerate(zip((pair.earlier, pair.later), both, strict=True), start=1):
            frames = study.videos[row].load()
            ax.imshow(frames[len(frames) // 2], cmap="gray", vmin=0, vmax=255)
            ax.set_title(f"exam {number}, {table['zone'][row]}: severity {truth[SEVERITY][row]}", fontsize=8)
            ax.set(xticks=[], yticks=[])
        lines = describe_findings(truth.loc[pair.earlier], truth.loc[pair.later]) or ["nothing that has a name"]
        both[1].set_xlabel("\n".join(lines), fontsize=7, loc="left")
    values = [table["sf_value"][shown[side].iloc[0]] for side in ("earlier", "later")]
    fig.suptitle(f"One simulated patient: S/F {values[0]:.0f}, then {values[1]:.0f}")
    return fig


def describe_findings(before: pd.Series, after: pd.Series) -> list[str]:
    """What changed between two rows of biomarkers, group by group, but for where the pleura lies."""
    told = []
    for group in BIOMARKER_GROUPS:
        names = [[b.option for b in BIOMARKERS if b.group == group and row[b.name] == 1] for row in (before, after)]
        if names[0] != names[1] and group != "pleural location":
            told.append(f"{group}: {', '.join(names[0])} \N{RIGHTWARDS ARROW} {', '.join(names[1])}")
    return told
