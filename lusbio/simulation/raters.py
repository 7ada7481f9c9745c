"""People who look at the videos and err: the trainee, whose labels the networks learn from, and the specialist."""

from collections import namedtuple

import numpy as np
import pandas as pd

from lusbio.simulation import constants as c
from lusbio.simulation.patients import Recording, biomarkers_of, choices_of, encode_choices, location_choice
from lusbio.vocabulary import TASKS, group_names, sf_class

Rater = namedtuple("Rater", "bias sd purpose")
"""A person who labels videos.

Attributes:
    bias: Added to every severity, in grades: a habit, so it can be learnt.
    sd: SD of the severity's error, in grades.
    purpose: Stream of random numbers, so that raters err independently.
"""
TRAINEE = Rater(*c.TRAINEE_SEVERITY, purpose=1)
SPECIALIST = Rater(*c.SPECIALIST_SEVERITY, purpose=2)


def round_grade(severity: float) -> str:
    """The class of a continuous severity in grades: rounded half up, limited to 0 to 3.

    Example:
        >>> round_grade(1.5), round_grade(-0.4), round_grade(3.7)
        ('2', '0', '3')
    """
    return TASKS["lung_severity"].classes[int(np.clip(np.floor(severity + 0.5), 0, 3))]


def rate_severity(recording: Recording, rater: Rater) -> str:
    """A rater's severity of one video: truth plus habit plus error, rounded to a class of the task."""
    noise = recording.generator(rater.purpose).standard_normal()
    return round_grade(recording.severity + rater.bias + rater.sd * noise)


def rate_biomarkers(recording: Recording, rater: Rater) -> dict[str, int]:
    """A rater's 38 biomarkers of one video. Errors move to a neighbouring option, so groups stay single-choice.

    Returns:
        1 or 0 by biomarker name.
    """
    rng = recording.generator(rater.purpose)
    rng.standard_normal()  # the severity's
    findings, depth_mm = recording.findings, recording.patient.device.depth_mm
    truth = choices_of(findings, depth_mm)
    seen = {group: _err(group, option, rng) for group, option in truth.items() if group in c.RATER_ERRORS}
    share = findings.pleura_mm / depth_mm + c.LOCATION_NOISE * rng.standard_normal()
    origin = max(1, truth["B-line origin"])
    origin = 3 - origin if rng.random() < c.ORIGIN_ERROR else origin
    seen["pleural location"] = location_choice(np.clip(share, 0, 1))
    seen["B-line origin"] = origin if seen["B-lines"] else 0
    return encode_choices(seen, np.array(findings.a_line_flags) != (rng.random(2) < c.FLAG_ERROR))


def _err(group: str, option: int, rng: np.random.Generator) -> int:
    """One option as a rater ticks it; always draws twice, so that groups stay independent."""
    errors = c.RATER_ERRORS[group]
    chance, direction = rng.random(2)
    if option == 0:
        return int(chance < errors.seen)
    if option == 1 and chance < errors.missed:
        return 0
    if chance > 1 - errors.step:
        last = len(group_names(group)) - (3 if group == "A-lines" else 1)  # two names of A-lines are flags
        return int(np.clip(option + (1 if direction < 0.5 else -1), 1, last))
    return option


def trainee_table(recordings: list[Recording], suffix: str = ".mp4") -> pd.DataFrame:
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
            "sf_ratio": sf_class(r.patient.sf_value),
            "sf_value": r.patient.sf_value,
            "disease": r.patient.disease,
            "specialist_lung_severity": rate_severity(r, SPECIALIST),
            **rate_biomarkers(r, TRAINEE),
        }
        for r in recordings
    )


def truth_table(recordings: list[Recording]) -> pd.DataFrame:
    """What is really there, for baselines only: ``video_id``, the three tasks and 38 biomarkers, one row per video."""
    return pd.DataFrame(
        {
            "video_id": r.video_id,
            "lung_severity": round_grade(r.severity),
            "sf_ratio": sf_class(r.patient.sf_value),
            "disease": r.patient.disease,
            **biomarkers_of(r.findings, r.patient.device.depth_mm),
        }
        for r in recordings
    )
