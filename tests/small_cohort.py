"""A tiny cohort that trains in a second: severity is brightness, the disease is where a bright bar lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.table import Cohort, check_table
from lusbio.profiles import PROFILES
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

SMALL = replace(PROFILES["smoke"].training, frames=2, image_size=32, epochs=3, clips_per_epoch=16, batch_size=8)
TINY = replace(PROFILES["smoke"], name="tiny", training=SMALL)


def make_small_cohort(folder: Path, patients: int = 20, videos: int = 2, simulated: bool = True) -> Cohort:
    """Write ``patients * videos`` arrays of 6 frames, 32 x 32 pixels, and their table."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        severity = patient % 4
        disease = TASKS["disease"].classes[patient % 3]
        for k in range(videos):
            frames = rng.integers(0, 40, (6, 32, 32)) + 50 * severity
            frames[:, 3 + 10 * (patient % 3) : 9 + 10 * (patient % 3)] = 250
            path = folder / "videos" / f"p{patient}_v{k}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, frames.clip(0, 255).astype(np.uint8))
            findings = dict.fromkeys(BIOMARKER_NAMES, np.nan)
            findings[BIOMARKER_NAMES[0]] = float(severity < 2)
            findings[BIOMARKER_NAMES[5]] = float(patient % 3 == 1)
            findings[BIOMARKER_NAMES[7]] = 1.0  # only one value: has to be masked
            rows.append(
                {
                    "video_id": path.stem,
                    "patient_id": f"p{patient}",
                    "path": str(path.relative_to(folder)),
                    "lung_severity": str(severity),
                    "disease": disease,
                    "sf_value": 450.0 - 60 * severity,
                    **findings,
                }
            )
    table = check_table(pd.DataFrame(rows), folder)
    return Cohort("small", table, folder, simulated=simulated)
