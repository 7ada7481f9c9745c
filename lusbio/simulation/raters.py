"""People who look at the videos and err: the trainee, whose labels the networks learn from, and the specialist."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lusbio.simulation import constants as c
from lusbio.simulation.findings import biomarkers_of, choices_of, encode_choices, location_choice
from lusbio.simulation.patients import Recording
from lusbio.vocabulary import TASKS, group_names


@dataclass(frozen=True)
class Rater:
    """A person who labels videos.

    Attributes:
        name: ``"trainee"`` or ``"specialist"``.
        bias: Added to every severity, in grades: a habit, so it can be learnt.
        sd: SD of the severity's error, in grades.
        purpose: Stream of random numbers, so that raters err independently.
    """

    name: str
    bias: float
    sd: float
    purpose: int


TRAINEE = Rater("trainee", *c.TRAINEE_SEVERITY, purpose=1)
SPECIALIST = Rater("specialist", *c.SPECIALIST_SEVERITY, purpose=2)


def round_grade(severity: float) -> str:
    """The class of a continuous severity: rounded half up, limited to 0 to 3.

    Args:
        severity: In grades.

    Returns:
        A class of the task ``lung_severity``.

    Example:
        >>> round_grade(1.5), round_grade(-0.4), round_grade(3.7)
        ('2', '0', '3')
    """
    classes = TASKS["lung_severity"].classes
    return classes[int(np.clip(np.floor(severity + 0.5), 0, len(classes) - 1))]


def rate_severity(recording: Recording, rater: Rater) -> str:
    """A rater's severity of one video: truth plus habit plus error, rounded.

    Args:
        recording: The video.
        rater: Who looks.

    Returns:
        A class of the task ``lung_severity``.
    """
    noise = recording.generator(rater.purpose).standard_normal()
    return round_grade(recording.severity + rater.bias + rater.sd * noise)


def rate_biomarkers(recording: Recording, rater: Rater) -> dict[str, int]:
    """A rater's 38 biomarkers of one video. Errors move to a neighbouring option, so groups stay single-choice.

    Args:
        recording: The video.
        rater: Who looks.

    Returns:
        1 or 0 by biomarker name.
    """
    rng = recording.generator(rater.purpose)
    rng.standard_normal()  # the severity's
    findings, depth_mm = recording.findings, recording.patient.device.depth_mm
    truth = choices_of(findings, depth_mm)
    seen = {
        g: _err(option, len(group_names(g)) - 2 * (g == "A-lines"), c.RATER_ERRORS[g], rng)
        for g, option in truth.items()
        if g in c.RATER_ERRORS
    }
    share = findings.pleura_mm / depth_mm + c.LOCATION_NOISE * rng.standard_normal()
    origin = max(1, truth["B-line origin"])
    origin = 3 - origin if rng.random() < c.ORIGIN_ERROR else origin
    flips = rng.random(2) < c.FLAG_ERROR
    stacked, wide = np.array([findings.a_line_copies >= 2, findings.a_line_width_mm > 20]) != flips
    choices = {
        **seen,
        "pleural location": location_choice(np.clip(share, 0, 1)),
        "B-line origin": origin if seen["B-lines"] else 0,
    }
    return encode_choices(choices, bool(stacked), bool(wide))


def _err(option: int, options: int, errors: c.RaterErrors, rng: np.random.Generator) -> int:
    """One option as a rater ticks it; always draws twice, so that groups stay independent."""
    chance, direction = rng.random(2)
    if option == 0:
        return int(chance < errors.seen)
    if option == 1 and chance < errors.missed:
        return 0
    if chance > 1 - errors.step:
        step = 1 if direction < 0.5 else -1
        return int(np.clip(option + step, 1, options - 1))
    return option


def trainee_table(recordings: Sequence[Recording], suffix: str = ".mp4") -> pd.DataFrame:
    """The cohort's table as people would hand it in: the trainee's labels, and the specialist's severity.

    Args:
        recordings: The videos.
        suffix: File type of the videos.

    Returns:
        One row per video, the columns of ``cohort.csv``; files are called ``videos/<video_id><suffix>``.
    """
    return pd.DataFrame(
        {
            "video_id": r.video_id,
            "patient_id": r.patient_id,
            "group_id": r.patient_id,
            "path": f"videos/{r.video_id}{suffix}",
            "probe": r.patient.device.probe,
            "zone": r.zone,
            "fps": r.patient.device.fps,
            "depth_mm": r.patient.device.depth_mm,
            "lung_severity": rate_severity(r, TRAINEE),
            "sf_ratio": r.patient.sf_ratio,
            "sf_value": r.patient.sf_value,
            "disease": r.patient.disease,
            "specialist_lung_severity": rate_severity(r, SPECIALIST),
            **rate_biomarkers(r, TRAINEE),
        }
        for r in recordings
    )


def truth_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """What is really there, for anchors only.

    Args:
        recordings: The videos.

    Returns:
        One row per video: ``video_id``, the three tasks, 38 biomarkers.
    """
    return pd.DataFrame(
        {
            "video_id": r.video_id,
            "lung_severity": round_grade(r.severity),
            "sf_ratio": r.patient.sf_ratio,
            "disease": r.patient.disease,
            **biomarkers_of(r.findings, r.patient.device.depth_mm),
        }
        for r in recordings
    )
