"""The numbers of the simulator in one place: who has what, and what it looks like.

Numbers with a source name it; all others are engineering choices, set so that the rates that do have a source come
out right (``targets.summarise_targets`` prints both). No number about labels was ever chosen by looking at what a
network scores. What a convex image looks like was set beside frames of the development patients of COVID-BLUES;
``experiments/transfer_ladder.py`` says what that does to networks.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lusbio.vocabulary import TASKS


def _read_rows(table: str) -> Iterable:
    """The rows of a table beside this file, as named tuples."""
    return pd.read_csv(Path(__file__).with_name(table)).itertuples(index=False)


HEALTHY, COVID, ILD, AIRWAY, EDEMA, OTHER_LUNG, NON_LUNG = TASKS["disease"].classes

VIDEOS_PER_PATIENT = 718 / 189
"""Source: Gare et al. 2022, Section 2: 718 videos of 189 patients, at least 2 each."""
FEWEST_VIDEOS, MOST_VIDEOS = 2, 12

ZONES = ("R1", "L1", "R2", "L2", "R3", "L3")
"""Upper anterior (1), lower anterior (2) and basal (3) points of both sides, as in the BLUE protocol."""
ZONE_SHIFT = {"1": -0.3, "2": 0.0, "3": 0.3}
"""Grades of severity added by the zone: anterior better, basal worse."""


RATES = {row.disease: row for row in _read_rows("diseases.csv")}
"""What a disease does to a patient: the rows of ``diseases.csv`` by disease, named tuples.

Columns:
    disease: One of the classes of the task.
    prior: Share of the patients.
    a_profile_only: Probability that a patient shows nothing but an A-profile: every video is of grade 0, with
        two isolated B-lines at most.
    severity: Mean of the severity latent (in grades) of patients with more than an A-profile.
    b_lines: Probability that a patient (with more than an A-profile) has B-lines in any video.
    irregular: The same for an indented or broken pleural line.
    thick: The same for a pleural line of 2 mm or more, among patients with an irregular one...
    thick_alone: ...and among the others.
    consolidation: The same for consolidation.
    effusion: The same for effusion.
    isolated_b: Probability of one or two isolated B-lines in a video of grade 0.
    sub_pleural: Probability that the B-lines of a video start below the pleural line: at small consolidations in
        pneumonia, hardly ever in edema.

Sources: rates per patient of cardiogenic edema, ILD, asthma/COPD, COVID and ARDS-like disease from the literature
digest in the simulator's specification; ``thick`` is set so that the specified rates of thick and of abnormal
(irregular or thick) pleura both come out. Healthy and non-lung: "mostly A-profile"; the rest are choices."""

PATIENT_SD = 0.35
"""Between patients of one disease, in grades of severity."""
VIDEO_SD = 1.00
"""Between videos of one patient beyond the zone, in grades."""
A_PROFILE_SEVERITY = (0.0, 0.27)
"""Mean and SD of the severity latent of a video of a patient with nothing but an A-profile."""
TRAIT_LOADING = {"b_lines": 0.4, "irregular": 0.4, "thick": 0.3, "consolidation": 0.8, "effusion": 0.2}
"""Correlation of having a trait at all with the patient's aeration loss."""

SF_LOADING = -0.55
"""Correlation of the latent of S/F with the patient's aeration loss; the rest is comorbidity, independent."""
SF_CENTRE, SF_SCALE = 0.87, 0.65
"""Mean and SD of the aeration loss (in grades) over the patients of all diseases."""
SF_QUANTILES = (0.0, 0.1, 0.3, 0.6, 1.0)
SF_EDGES = (80.0, 180.0, 275.0, 430.0, 476.0)
"""Cumulated shares of the S/F ranges from worst to best and their limits; 476 is 100 % on room air."""

# --- findings given the grade (index 0..3) -----------------------------------------------------------------------
GRADES = tuple(_read_rows("grades.csv"))
"""What a video of a grade shows besides: the rows of ``grades.csv``, named tuples; all are probabilities.

Columns:
    grade: The true grade, 0 to 3, which is also the position.
    a_lines: A-lines, where white lung or effusion do not forbid them.
    a_lines_bold: Of A-lines, bold ones; less or more by 0.25 towards the ends of the grade.
    b_beside: Some separate B-lines where no B-line was drawn as a qualifier.
    indent_beside, break_beside: The same for indents and breaks of an irregular pleural line.
    thick: A thick pleura in patients who have it."""
A_LINES_STACKED = {1: 0.25, 2: 0.55}
"""P(also stacked) of weak (1) and bold (2) A-lines."""
A_LINES_WIDE = 0.55
QUALIFIERS = tuple(_read_rows("qualifiers.csv"))
"""What makes a video of a grade, the trait of the patient that it takes, and its probability: the rows of
``qualifiers.csv``, named tuples; drawn until there is at least one among those the patient can have."""
WHITE_WITHOUT_CONSOLIDATION = 0.55
"""P(a video whose latent calls for grade 3 reaches it) in a patient without consolidation, who can do so by white
lung only; the others stay at grade 2."""
SMALL_BESIDE_LARGE = 0.3
EFFUSION_BY_ZONE = {"1": 0.08, "2": 0.20, "3": 0.70}
"""P(effusion) in a video of a patient who has one."""

# --- raters ------------------------------------------------------------------------------------------------------
TRAINEE_SEVERITY = (0.3, 0.3)
SPECIALIST_SEVERITY = (-0.1, 0.5)
"""Bias and SD of a rater's severity in grades: 56 % exact agreement between the two (Gare et al. 2022)."""
LOCATION_NOISE = 0.015
"""SD of a rater's estimate of where the pleura lies, as a share of the depth."""
FLAG_ERROR = 0.05
"""P(a rater gets "also stacked" or "also wide" wrong)."""
ORIGIN_ERROR = 0.06


RATER_ERRORS = {row.group: row for row in _read_rows("rater_errors.csv")}
"""How a rater errs on a single-choice group: the rows of ``rater_errors.csv`` by group, named tuples.

Columns:
    group: The group.
    seen: P(first option that is present | none): seen though absent.
    missed: P(none | first option that is present).
    step: P(a neighbouring option) among the options that are present.

Set so that kappa against the truth is .9 (A-lines), .9 (B-lines), .75 (consolidation), .7 (effusion), .7 (pleural
abnormality) and .5 (pleural thickness)."""

# --- devices: nuisance, drawn per patient, lowest and highest value ---------------------------------------------------
WIDTH_MM = (38, 50)
RADIUS_MM, OPENING_DEGREES = (45, 60), (60, 72)
FREQUENCY_MHZ = {"linear": (6, 12), "convex": (2, 5)}
"""Width of a linear probe, geometry of a convex one, and frequency: the simulator's specification."""
HAZE_DB = {"linear": (-13, -5), "convex": (-10, -1)}
FADE_DB = {"linear": (8, 20), "convex": (18, 34)}
"""The lung just below the pleural line about muscle, and what it loses until the bottom."""
DEPTHS_MM = {"linear": (40, 45, 50, 55, 60), "convex": (80, 90, 100, 110, 120)}
FRAMES_PER_SECOND, DYNAMIC_RANGE_DB = (20, 40), (50, 70)
GAIN_SD_DB, GAIN_LIMIT_DB = 3.0, 6.0
TGC_SD_DB, TGC_LIMIT_DB = 2.0, 4.0
PERSISTENCE = (0.0, 0.3)
SMOOTHING_PX = (0.7, 1.3)
"""SD of the smoothing that scanners do after log compression..."""
SMOOTHED = {"linear": (1.0, 1.0), "convex": (1.4, 3.0)}
"""...times this along and across the beam."""
NOISE_DB = (-32, -20)
"""Electronic noise at the bottom, about muscle."""

# --- bodies and motion ------------------------------------------------------------------------------------------------
WALL_MM, WALL_SPREAD_PATIENTS, WALL_SPREAD_VIDEOS = 20.0, 0.30, 0.15
"""Median skin-to-pleura distance, and SD of its logarithm between patients and between videos of one."""
THINNEST_WALL_MM = 9.5
BREATHS_HZ, BEATS_HZ = (0.20, 0.33), (1.0, 1.7)
BREATHS_PER_GRADE_HZ = 0.1
"""The sick breathe up to this much faster per grade of aeration loss beyond 1."""
SLIDE_MM, SLIDE_BASAL_MM, SLIDE_LOST_MM = (2, 6), (8, 18), (0, 1)
"""Respiratory sliding, peak to peak; less where findings would leave the image."""
SLIDING_LOST = 0.07
BEAT_MM = (0.2, 0.6)
DRIFT_MM = (0.25, 1.0)
"""Amplitude of the up and down of the pleura (0.5 to 2 mm peak to peak)."""

# --- geometry of findings ---------------------------------------------------------------------------------------------
CLASS_WIDTHS_MM = {1: (1.5, 4.5), 2: (1.5, 3.2), 3: (5.4, 9.6), 4: (10.6, 16.0)}
"""Widths drawn for the size options; they keep clear of the limits, so that what is drawn can be told."""
THICKNESS_MM = {0: (0.5, 0.9), 1: (2.0, 3.0), 2: (4.0, 5.0), 3: (5.4, 7.0)}
EFFUSION_MM = ((1.5, 4.0), (6.5, 12.0))
"""Small and large effusions; respiration moves them by 10 %."""
EFFUSION_SMALL = 0.45
B_ORIGIN_MM = (2.0, 8.0)
GAP_MM, EDGE_MM = 1.5, 1.0
"""Least distance between findings side by side on the pleura, and between findings and the edge of the image."""
BOTTOM_MM = 8.0
"""Least lung that is seen below the pleural line."""
B_LINE_SPACING_MM = 2.6
"""Wished distance between separate B-lines..."""
CONVEX_SPREAD = 1.7
"""...times this with a convex probe: low frequencies have wide beams."""
B_LINE_MM = {"linear": (0.6, 1.3), "convex": (1.0, 4.0)}
B_LINE_CROWDED = {"linear": 0.8, "convex": 0.5}
"""Width of separate B-lines, and most of the distance to the next one that it may take."""
B_LINE_LEVELS_DB = {"linear": (-2.0, 3.0), "convex": (-5.0, 3.0)}
"""How much weaker or stronger than usual a separate B-line is."""
PARIETAL_MM = 0.8
"""Thickness of the parietal line where fluid parts it from the visceral one."""
ROUGHNESS_MM = 0.07
"""Height of the small waves of every visceral line."""
COMETS = 0.8
"""Mean number of short comet tails."""
RIBS = {"linear": 0.35, "convex": 1.0}
"""P(ribs) where the findings leave room for them."""
RIB_SIDES = {"linear": ((-1,), (1,), (-1, 1)), "convex": ((-1,), (1,), *4 * ((-1, 1),))}
"""Edges with a rib, each of these as likely."""
RIB_ROOM = {"linear": (0.0, 0.4), "convex": (0.35, 0.5)}
"""Least and most share of the room left by the findings that a rib takes."""
RIB_REACH_MM = {"linear": (2.5, 9.0), "convex": (2.5, 28.0)}
RIB_WIDTH_MM, RIB_ABOVE_PLEURA_MM = 20.0, 5.0

# --- pixels -----------------------------------------------------------------------------------------------------------
INTERNAL_SIZE = 192
"""Least rows and columns of the grid; smaller images are area averages of it, as a decoder's are."""
SECTOR_CROP = 0.7
"""Share of the arc of a convex probe that is cut off at the top of the image."""
SOUND_MM_PER_US = 1.54
PSF = {"linear": (0.75, 1.2), "convex": (0.65, 0.9)}
"""SD of the point-spread function along and across the beam, in wavelengths."""
LUNG_STREAK = 1.5
"""How much wider than in tissue the speckle of the lung is: reverberation is streaky."""
WHITE_DB = {"linear": 24.0, "convex": 31.0}
"""Echo level that is white, in decibels about muscle, as all levels below."""
GREY_CURVE = 1.5
"""Exponent of the grey map: scanners darken the middle of the range."""
FAT_DB, MUSCLE_DB, SKIN_DB = -9.0, 0.0, 3.0
STREAK_DB = 1.3
"""SD of the streaks of muscle: small, so that speckle stays what is measured there."""
PLEURA_DB, SHEEN_DB = {"linear": 23.0, "convex": 25.0}, 3.0
"""The pleural line, and how uneven it is along the lung."""
CLOUD_DB = 1.0
"""SD of the slow unevenness of the lung."""
MIRROR_DB = -20.0
"""Chest wall seen again below the pleura, by reverberation, blurred."""
A_LINE_DB = {"linear": {1: 9.0, 2: 18.0}, "convex": {1: 13.0, 2: 21.0}}
"""Weak and bold A-lines, about the haze around them."""
A_LINE_STEP_DB = 4.0
"""Each further repetition loses this against the haze, which loses about as much again on the way."""
B_LINE_DB = {"linear": 5.0, "convex": 3.0}
B_LINE_FADE = {"linear": 0.0, "convex": 0.4}
"""B-lines: echo at the pleura, and the share of the fading of the lung that they fade by."""
WHITE_LUNG_DB, COMET_DB = 1.0, 2.0
FLUID_DB, FLUID_ENHANCES_DB = -32.0, 3.0
CONSOLIDATION_DB = (-15.0, -9.0)
SHRED_DB, AIR_DB, CONSOLIDATION_ENHANCES_DB = 6.0, 8.0, 5.0
"""Border of a consolidation, air in its bronchi, and the enhancement below it about the haze."""
SHADOW_DB = {"linear": -28.0, "convex": -18.0}
CONTACT_LOSS_DB, CONVEX_EDGE_DB = 7.0, 13.0
"""Most that poor contact takes from one edge; what the outermost beams of a curved array lack."""
CONVEX_BEAM_DB = 3.0
"""How much brighter or darker than its neighbourhood a beam of a curved array is at the bottom."""
