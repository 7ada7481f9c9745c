"""The records of the simulator: a scanner, a person, a video that is still to be drawn."""

from dataclasses import dataclass

import numpy as np

from lusbio.simulation.findings import Findings
from lusbio.vocabulary import sf_class


@dataclass(frozen=True)
class Device:
    """A scanner and its settings, the same for all videos of a patient.

    Attributes:
        probe: ``"linear"`` or ``"convex"``.
        depth_mm: Depth of the image.
        width_mm: Width of the image (linear), or of the arc at the skin (convex).
        radius_mm: Radius of a convex probe; 0 for a linear one.
        fps: Frames per second.
        frequency_mhz: Centre frequency.
        dynamic_range_db: Decibels between black and white.
        gain_db: Overall gain error.
        tgc_db: Gain error at the skin, at mid-depth and at the bottom.
        persistence: Share of the previous frame in the next, 0 to 0.3.
        smoothing_px: SD of the scanner's own smoothing of the image, in pixels of the grid.
        haze_db: Lung just below the pleural line, in decibels about muscle.
        fade_db: How much weaker it is at the bottom.
        noise_db: Electronic noise at the bottom of the image, against muscle.
    """

    probe: str
    depth_mm: float
    width_mm: float
    radius_mm: float
    fps: float
    frequency_mhz: float
    dynamic_range_db: float
    gain_db: float
    tgc_db: tuple[float, float, float]
    persistence: float
    smoothing_px: float
    haze_db: float
    fade_db: float
    noise_db: float


@dataclass(frozen=True)
class Patient:
    """One simulated person.

    Attributes:
        index: 1-based.
        disease: One of the classes of the task.
        traits: What the patient has in some video: ``"b_lines"``, ``"irregular"`` (pleura), ``"thick"`` (pleura),
            ``"consolidation"``, ``"effusion"``.
        a_profile_only: True when nothing but an A-profile is to be seen.
        aeration_loss: The latent behind severity and S/F ratio, in grades.
        sf_value: S/F ratio.
        wall_mm: Typical distance from skin to pleura.
        breaths_hz: Respiration rate.
        beats_hz: Heart rate.
        device: The scanner.
    """

    index: int
    disease: str
    traits: frozenset[str]
    a_profile_only: bool
    aeration_loss: float
    sf_value: float
    wall_mm: float
    breaths_hz: float
    beats_hz: float
    device: Device

    @property
    def sf_ratio(self) -> str:
        """Class of the S/F ratio."""
        return sf_class(self.sf_value)


@dataclass(frozen=True)
class Recording:
    """One simulated video, before it is drawn.

    Attributes:
        patient: Whose.
        index: 1-based, within the patient.
        zone: One of ``constants.ZONES``.
        severity: True severity on the continuous scale, -0.5 to 3.5 grades; rounded, it is the grade of the findings.
        findings: What is to be seen.
        seed: Of the cohort.
    """

    patient: Patient
    index: int
    zone: str
    severity: float
    findings: Findings
    seed: int

    @property
    def video_id(self) -> str:
        """Name of the video."""
        return f"{self.patient_id}_v{self.index:02d}"

    @property
    def patient_id(self) -> str:
        """Name of the patient."""
        return f"p{self.patient.index:04d}"

    def generator(self, purpose: int) -> np.random.Generator:
        """A random generator that depends on nothing but cohort seed, patient, video and purpose.

        Args:
            purpose: A small number: 0 findings, 1 trainee, 2 specialist, 3 placement, 4 pixels.

        Returns:
            A fresh generator.
        """
        return video_generator(self.seed, self.patient.index, self.index, purpose)


def video_generator(seed: int, patient: int, video: int, purpose: int) -> np.random.Generator:
    """A random generator that depends on nothing but its arguments.

    Args:
        seed: Of the cohort.
        patient: 1-based.
        video: 1-based; 0 for draws that belong to the patient, and patient 0 for the cohort's.
        purpose: Which of the video's independent streams.

    Returns:
        A fresh generator.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, patient, video], spawn_key=(purpose,)))
