"""The sheet that a rater fills in for each video: nine groups of findings and severity, and what may stand on it.

Answers are a dictionary: by group the options that were ticked, or None where the rater is unsure. A group that is not
in it is open.
"""

from lusbio.files import text_sha256
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKER_GROUPS, BIOMARKERS, SEVERITY, TASKS, group_names

Answers = dict[str, list[str] | None]

GRADES = TASKS[SEVERITY].classes
GROUPS = (*BIOMARKER_GROUPS, SEVERITY)
"""The ten groups, in the order of the sheet."""

ORIGIN = "B-line origin"
NO_B_LINES, NO_ORIGIN = "b_lines_none", "b_line_origin_na"
"""The first sets the second, which is refused beside B-lines."""

FLAGS_STAND_BESIDE = ("a_lines_weak", "a_lines_bold")

VOCABULARY = text_sha256([(b.name, b.group, b.option) for b in BIOMARKERS], GRADES)[:8]
"""What ratings were given in: another list of groups, options or grades has another."""


def options_of(group: str) -> tuple[str, ...]:
    """What can be ticked in one of ``GROUPS``: names of biomarkers, or grades."""
    return GRADES if group == SEVERITY else group_names(group)


def describe_sheet() -> list[dict]:
    """The sheet as plain values, for a browser to draw it and to keep its rules.

    Returns:
        Per group ``name, title, options``; an option has ``name, text, meaning`` and, by the rules, ``beside`` (it is
        a flag: the options of which one has to be ticked too) or ``sets`` (the only answer of another group that
        then is right, and wrong beside the other options of this one).
    """
    rules = {name: {"beside": FLAGS_STAND_BESIDE} for name in BIOMARKER_FLAGS} | {NO_B_LINES: {"sets": NO_ORIGIN}}
    sheet = [
        {
            "name": group,
            "title": group[0].upper() + group[1:],
            "options": [
                {"name": b.name, "text": b.option, "meaning": b.meaning} | rules.get(b.name, {})
                for b in BIOMARKERS
                if b.group == group
            ],
        }
        for group in BIOMARKER_GROUPS
    ]
    grades = [{"name": grade, "text": grade, "meaning": f"Severity {grade} of 3"} for grade in GRADES]
    return [*sheet, {"name": SEVERITY, "title": TASKS[SEVERITY].title, "options": grades}]


def answer_problems(answers: Answers) -> list[str]:
    """What is wrong with a sheet that is meant to be complete; empty when nothing is.

    Example:
        >>> answer_problems({group: None for group in GROUPS} | {"effusion": ["effusion_none", "effusion_small"]})
        ['effusion: 2 options are ticked (effusion_none, effusion_small), expected one']
    """
    problems = [f"{group}: neither answered nor unsure" for group in GROUPS if group not in answers]
    problems += [f"{group}: no such group" for group in answers if group not in GROUPS]
    for group, ticked in answers.items():
        if group not in GROUPS or ticked is None:
            continue
        problems += [f"{group}: no option {name!r}" for name in ticked if name not in options_of(group)]
        chosen = [name for name in ticked if name not in BIOMARKER_FLAGS]
        if len(chosen) != 1:
            problems.append(f"{group}: {len(chosen)} options are ticked ({', '.join(chosen)}), expected one")
        elif len(chosen) < len(ticked) and chosen[0] not in FLAGS_STAND_BESIDE:
            problems.append(f"{group}: a flag stands beside {chosen[0]}, expected {' or '.join(FLAGS_STAND_BESIDE)}")
    b_lines, origin = answers.get("B-lines"), answers.get(ORIGIN, [NO_ORIGIN])
    if b_lines == [NO_B_LINES] and origin != [NO_ORIGIN]:
        problems.append(f"{ORIGIN}: there is no B-line, expected {NO_ORIGIN}")
    elif b_lines and b_lines != [NO_B_LINES] and ORIGIN in answers and origin == [NO_ORIGIN]:
        problems.append(f"{ORIGIN}: {NO_ORIGIN} stands beside {b_lines[0]}")
    return problems


def encode_answers(answers: Answers) -> dict:
    """Complete answers as they are logged: ``lung_severity``, and ``biomarkers`` with 1, 0 or None (unsure) for all."""
    bits = {}
    for group in BIOMARKER_GROUPS:
        ticked = answers.get(group)
        bits |= {name: None if ticked is None else int(name in ticked) for name in group_names(group)}
    (grade,) = answers.get(SEVERITY) or [None]
    return {SEVERITY: grade, "biomarkers": bits}


def decode_answers(rating: dict) -> Answers:
    """The reverse of ``encode_answers``."""
    answers: Answers = {}
    for group in BIOMARKER_GROUPS:
        bits = {name: rating["biomarkers"][name] for name in group_names(group)}
        unsure = all(bit is None for bit in bits.values())
        answers[group] = None if unsure else [name for name, bit in bits.items() if bit]
    answers[SEVERITY] = None if rating[SEVERITY] is None else [rating[SEVERITY]]
    return answers
