"""The numbers of the simulator in one place, who has what, and what it looks like, read from the files they stand in.

Every name in ``words/simulator.toml``, which says what the numbers mean and where they come from, is an attribute of
this module: ``constants.PATIENT_SD``.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lusbio.files import read_words
from lusbio.vocabulary import TASKS

NUMBERS = read_words("simulator.toml")
"""The content of ``words/simulator.toml`` by name."""
globals().update(NUMBERS)  # so that each is written constants.NAME, as any other constant


def _read_rows(table: str) -> Iterable:
    """The rows of a table beside this file, as named tuples."""
    return pd.read_csv(Path(__file__).with_name(table)).itertuples(index=False)


HEALTHY, COVID, ILD, AIRWAY, EDEMA, OTHER_LUNG, NON_LUNG = TASKS["disease"].classes

VIDEOS_PER_PATIENT = 718 / 189
"""Source: Gare et al. 2022, Section 2: 718 videos of 189 patients."""

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

GRADES = tuple(_read_rows("grades.csv"))
"""What a video of a grade shows besides: the rows of ``grades.csv``, named tuples; all are probabilities.

Columns:
    grade: The true grade, 0 to 3, which is also the position.
    a_lines: A-lines, where white lung or effusion do not forbid them.
    a_lines_bold: Of A-lines, bold ones; less or more by 0.25 towards the ends of the grade.
    b_beside: Some separate B-lines where no B-line was drawn as a qualifier.
    indent_beside, break_beside: The same for indents and breaks of an irregular pleural line.
    thick: A thick pleura in patients who have it."""

QUALIFIERS = tuple(_read_rows("qualifiers.csv"))
"""What makes a video of a grade, the trait of the patient that it takes, and its probability: the rows of
``qualifiers.csv``, named tuples; drawn until there is at least one among those the patient can have."""

RATER_ERRORS = {row.group: row for row in _read_rows("rater_errors.csv")}
"""How a rater errs on a single-choice group: the rows of ``rater_errors.csv`` by group, named tuples.

Columns:
    group: The group.
    seen: P(first option that is present | none): seen though absent.
    missed: P(none | first option that is present).
    step: P(a neighbouring option) among the options that are present.

Set so that kappa against the truth is .9 (A-lines), .9 (B-lines), .75 (consolidation), .7 (effusion), .7 (pleural
abnormality) and .5 (pleural thickness)."""

TABLES = (NUMBERS, RATES, GRADES, QUALIFIERS, RATER_ERRORS)
"""Everything that was read; see ``cohorts.synthetic``."""
