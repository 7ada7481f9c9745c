"""Later exams of the same patients: what stays, what drifts, and what is drawn anew.

A file of its own, so that the first exam, which is the whole cohort elsewhere, stays what it is.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from lusbio.errors import LusbioError
from lusbio.simulation import constants as c
from lusbio.simulation import population
from lusbio.simulation.patients import Patient, Recording, video_generator

LOSS_STEP = (-0.10, 0.45)
"""Mean and SD of the change of a patient's aeration loss from one exam to the next, in grades: most recover a little.
(Engineering choice, as all three.)"""

PLACE_SD = 0.40
"""SD of what a place does on its own between two exams, in grades."""

SF_SD = 0.15
"""SD of the S/F latent between two exams with one and the same aeration loss."""

APART = 100
"""Video k of exam e has index k + ``APART`` * (e - 1), and so its own streams of random numbers."""

RAREST = 1e-3
"""Least share of a quantile that the S/F latent is recovered from: the map is flat at its ends."""


class LaterRecording(Recording):
    """A video of a later exam; ``index`` says which, see ``APART``."""

    @property
    def video_id(self) -> str:
        """Name of the video: that of the first exam at this place, and the number of the exam."""
        exam, place = divmod(self.index, APART)
        return f"{self.patient_id}_v{place:02d}_e{exam + 1}"


def later_exam(recordings: Sequence[Recording], exam: int) -> list[Recording]:
    """All videos of the next exam: the same patients, bodies, scanners and places, some days later.

    Args:
        recordings: Of the exam before, all videos of every patient.
        exam: Number of the exam that is made, at least 2.

    Returns:
        Recordings in the order given.

    Raises:
        LusbioError: If the recordings are not those of the exam before.

    Source: engineering choice.
    """
    if exam < 2 or any(recording.index // APART != exam - 2 for recording in recordings):
        raise LusbioError(f"exam is {exam}: it is made from the recordings of exam {exam - 1}, the first is 1")
    people = {r.patient.index: _later_patient(r.patient, r.seed, exam) for r in recordings}
    return [_later_recording(r, *people[r.patient.index], exam) for r in recordings]


def _later_patient(patient: Patient, seed: int, exam: int) -> tuple[Patient, float]:
    """The patient with another aeration loss and S/F ratio, and the step of the loss in grades."""
    rng = video_generator(seed, patient.index, APART * (exam - 1), 0)
    mean, sd = LOSS_STEP
    step = 0.0 if patient.a_profile_only else mean + sd * float(rng.standard_normal())
    latent = ndtri(np.clip(np.interp(patient.sf_value, c.SF_EDGES, c.SF_QUANTILES), RAREST, 1 - RAREST))
    # Comorbidity is what the loss does not explain; it stays, and the loss moves the rest.
    latent += c.SF_LOADING * step / c.SF_SCALE + SF_SD * rng.standard_normal()
    sf = float(np.round(np.interp(ndtr(latent), c.SF_QUANTILES, c.SF_EDGES), 1))
    return patient._replace(aeration_loss=patient.aeration_loss + step, sf_value=sf), step


def _later_recording(before: Recording, patient: Patient, step: float, exam: int) -> LaterRecording:
    """The same place: its last severity, moved with the patient and by itself, drawn as any other, none forced."""
    index = before.index % APART + APART * (exam - 1)
    own = PLACE_SD * float(video_generator(before.seed, patient.index, index, 5).standard_normal())
    drawn = population._draw_video(patient, index, before.zone, before.severity + step + own, set(), before.seed)
    return LaterRecording(*drawn)
