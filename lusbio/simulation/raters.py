"""People who look at the videos and err: the trainee, whose labels the networks learn from, and the specialist."""

from collections import namedtuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

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


def draw_luck(recording: Recording, rater: Rater) -> tuple[np.ndarray, np.ndarray]:
    """How well a rater does on everything that is judged in one video: all go together, by how well it was read.

    Returns:
        Two numbers each for the severity, every group of ``constants.RATER_ERRORS``, location and origin, and the two
        flags, (12,): luck, uniform in (0, 1), small where an error is large or likely; and a standard normal error of
        that size. (Correlation of the normal scores of any two of the former: ``constants.CARE``.)
    """
    rng, count = recording.generator(rater.purpose), len(c.RATER_ERRORS) + 5
    care = np.sqrt(c.CARE) * rng.standard_normal()
    luck = ndtr(care + np.sqrt(1 - c.CARE) * rng.standard_normal(count))
    return luck, rng.choice([-1, 1], count) * ndtri(1 - luck / 2)


def rate_severity(recording: Recording, rater: Rater) -> str:
    """A rater's severity of one video: truth plus habit plus error, rounded to a class of the task."""
    return round_grade(recording.severity + rater.bias + rater.sd * draw_luck(recording, rater)[1][0])


def rate_biomarkers(recording: Recording, rater: Rater) -> dict[str, int]:
    """A rater's 38 biomarkers of one video. Errors move to a neighbouring option, so groups stay single-choice.

    Returns:
        1 or 0 by biomarker name.
    """
    (_, *luck), (_, *errors) = draw_luck(recording, rater)  # the first are the severity's
    findings, depth_mm = recording.findings, recording.patient.device.depth_mm
    truth = choices_of(findings, depth_mm)
    drawn = zip(c.RATER_ERRORS, luck, errors, strict=False)
    seen = {group: _err(group, truth[group], chance, 1 if error > 0 else -1) for group, chance, error in drawn}
    share = findings.pleura_mm / depth_mm + c.LOCATION_NOISE * errors[-4]
    origin = max(1, truth["B-line origin"])
    origin = 3 - origin if luck[-3] < c.ORIGIN_ERROR else origin
    seen["pleural location"] = location_choice(np.clip(share, 0, 1))
    seen["B-line origin"] = origin if seen["B-lines"] else 0
    return encode_choices(seen, np.array(findings.a_line_flags) != (np.array(luck[-2:]) < c.FLAG_ERROR))


def _err(group: str, option: int, chance: float, step: int) -> int:
    """One option as a rater ticks it, by luck: ``chance`` in (0, 1), small where errors happen, and up or down."""
    errors = c.RATER_ERRORS[group]
    missed = errors.missed if option == 1 else 0.0
    if option == 0:
        return int(chance < errors.seen)
    if chance < missed:
        return 0
    last = len(group_names(group)) - (3 if group == "A-lines" else 1)  # two names of A-lines are flags
    return int(np.clip(option + step, 1, last)) if chance < missed + errors.step else option


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
