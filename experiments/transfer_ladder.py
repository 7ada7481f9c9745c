"""Which part of the image model keeps networks from real patients? One change of its constants at a time.

A rung is a convex cohort of profile ``laptop``, two biomarker networks trained on it, and their zero-shot AUC on those
patients of COVID-BLUES that may be looked at. About five minutes a rung on one core, so it runs only when asked to:

    .venv/bin/python experiments/transfer_ladder.py --run
"""

import argparse
from dataclasses import dataclass
from unittest import mock

import pandas as pd

from lusbio.cohorts.covid_blues import DEVELOPMENT_PATIENTS
from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.files import Table, build_folder, text_sha256
from lusbio.paper.simulator import measure_transfer
from lusbio.profiles import PROFILES
from lusbio.runs.spec import Run, prepare_cohort
from lusbio.runs.study import Study, as_study, open_study
from lusbio.simulation import constants
from lusbio.vocabulary import BIOMARKER_TASK

FOLDS, SEED = (0, 1), 0
"""Two of the three folds, and one seed, for every rung."""

Constants = dict[str, object]


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: One or two words.
        change: What is different from the image model before the ladder, in words.
        constants: The same as values of ``simulation.constants``.
        kept: Whether the package's image model has it.
    """

    name: str
    change: str
    constants: Constants
    kept: bool


def convex(**values: object) -> Constants:
    """Constants that are given by probe, with other values for the convex one."""
    return {name: getattr(constants, name) | {"convex": value} for name, value in values.items()}


def now(*names: str) -> Constants:
    """Constants as the package has them."""
    return {name: getattr(constants, name) for name in names}


BEFORE = convex(
    SMOOTHED=(1.0, 1.0),
    WHITE_DB=24.0,
    SHADOW_DB=-28.0,
    PLEURA_DB=23.0,
    A_LINE_DB={1: 9.0, 2: 18.0},
    B_LINE_DB=2.0,
    B_LINE_MM=(1.02, 2.21),
    B_LINE_CROWDED=9.0,
    B_LINE_LEVELS_DB=(-2.0, 3.0),
    B_LINE_FADE=0.0,
    RIBS=0.75,
    RIB_SIDES=((-1,), (1,), (-1, 1)),
    RIB_ROOM=(0.0, 0.4),
    HAZE_DB=(-19, -9),
    FADE_DB=(14, 28),
    DEPTHS_MM=(80, 100, 120, 140, 160),
) | {"CONVEX_BEAM_DB": 0.0, "SECTOR_CROP": 0.0, "OPENING_DEGREES": (55, 70)}
"""The image model that the ladder starts from."""

TEXTURE = now(
    "WHITE_DB",
    "SHADOW_DB",
    "PLEURA_DB",
    "SMOOTHED",
    "A_LINE_DB",
    "B_LINE_DB",
    "B_LINE_MM",
    "B_LINE_CROWDED",
    "B_LINE_LEVELS_DB",
    "B_LINE_FADE",
    "CONVEX_BEAM_DB",
    "HAZE_DB",
    "FADE_DB",
)
GEOMETRY = now("RIBS", "RIB_SIDES", "RIB_ROOM", "SECTOR_CROP", "DEPTHS_MM", "OPENING_DEGREES")
WIDER = {
    "GAIN_SD_DB": 6.0,
    "GAIN_LIMIT_DB": 12.0,
    "TGC_SD_DB": 4.0,
    "TGC_LIMIT_DB": 8.0,
    "PERSISTENCE": (0.0, 0.6),
    "SMOOTHING_PX": (0.5, 2.5),
    "DYNAMIC_RANGE_DB": (45, 75),
    "NOISE_DB": (-36, -14),
    "CONTACT_LOSS_DB": 14.0,
} | convex(HAZE_DB=(-22, -3), FADE_DB=(10, 34))

RUNGS = (
    Rung("before", "nothing", {}, False),
    Rung("wider nuisance", "gain, noise, contact, range, smoothing and haze vary more", WIDER, False),
    Rung("geometry", "ribs beside the lung's window, wide cropped sector, depth 80 to 120 mm", GEOMETRY, True),
    Rung("texture", "darker, brighter haze; smoothed across beams, soft fading B-lines, bolder A-lines", TEXTURE, True),
    Rung("geometry and texture", "both: the package's image model", now(*BEFORE), True),
)

NOTE = (
    "Simulated to real, step by step. Percent; mean over the runs of a rung, 95 % interval over patients and runs: its "
    "width is what twelve patients cannot tell apart. The numbers to quote, on all other patients, are in transfer.csv."
)


def train_rung(rung: Rung, real: Study) -> list[Run]:
    """Simulate the cohort of a rung and train on it, one run per fold of ``FOLDS``; nothing is repeated."""
    profile, changed = real.profile, BEFORE | rung.constants
    mark = text_sha256(repr(sorted(changed.items())))[:8]
    with mock.patch.multiple(constants, **changed):
        cohort = simulate_cohort(
            build_folder("cohorts", "ladder", profile.name, f"{rung.name.replace(' ', '_')}-{mark}"),
            patients=profile.patients,
            seed=SEED,
            probe="convex",
            size=profile.video_size,
            frames=profile.video_frames,
        )
    simulated = as_study(prepare_cohort(cohort, profile, real.jobs), real.jobs)
    return simulated.train([spec for spec in simulated.specs(BIOMARKER_TASK) if spec.fold in FOLDS])


def climb(real: Study) -> tuple[pd.DataFrame, list[Run]]:
    """Train and test every rung; the table, and the runs behind it."""
    others = set(real.table["patient_id"]) - set(DEVELOPMENT_PATIENTS)
    rows, runs = [], []
    for rung in RUNGS:
        found = train_rung(rung, real)
        measured = measure_transfer(found, real, real.draws, left_out=others)
        labels = {"rung": rung.name, "changed": rung.change, "kept": "yes" if rung.kept else "no"}
        rows.append(measured.assign(**labels))
        runs += found
        print(rows[-1][["rung", "finding", "auc", "ci_low", "ci_high"]].round(1).to_string(header=False), flush=True)
    columns = ["rung", "changed", "finding", "videos", "patients", "auc", "ci_low", "ci_high", "kept"]
    return pd.concat(rows, ignore_index=True)[columns], runs


def main() -> None:
    """Climb the ladder and write ``transfer_ladder.csv`` and ``.md`` beside the tables of the synthetic cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="about five minutes a rung")
    parser.add_argument("--profile", default="laptop", choices=PROFILES, help="smoke: only to see that it works")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.run:
        print(f"{len(RUNGS)} rungs, about five minutes each: run with --run")
        return
    real = open_study(options.profile, "covid_blues", options.jobs)
    table, runs = climb(real)
    origin = f"Tested on {len(DEVELOPMENT_PATIENTS)} development patients of: {real.origin(runs)} · trained on "
    origin += f"synthetic_convex, seed {SEED}, folds {list(FOLDS)}"
    home = open_study(options.profile, "synthetic", options.jobs)
    print(home.publish("transfer_ladder", Table(table, note=NOTE, origin=origin)))


if __name__ == "__main__":
    main()
