"""What is made of ratings: labels of a cohort, and tasks for Label Studio."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pandas as pd

from lusbio.cohorts.table import list_some
from lusbio.errors import LusbioError
from lusbio.files import text_sha256, write_text
from lusbio.labelling.sheet import Answers, decode_answers, describe_sheet
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, SEVERITY, SPECIALIST, group_names

UNSURE = "unsure"


def merge_ratings(
    table: pd.DataFrame, ratings: pd.DataFrame, trainee: str, specialist: str | None = None, *, replace: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Put first ratings into a cohort's table, group by group.

    Args:
        table: As ``read_table`` gives it.
        ratings: From ``read_ratings``.
        trainee: Whose severity and biomarkers become the labels.
        specialist: Whose severity becomes ``SPECIALIST``; None for nobody's.
        replace: Take ratings where the table has other labels already; otherwise those are kept.

    Returns:
        A new table, and a line for every label that differs and for every video that is not usable.

    Raises:
        LusbioError: If a video is not rated yet, naming it and how to go on; or if both raters are the same.
    """
    if trainee == specialist:
        raise LusbioError(f"trainee and specialist are both {trainee!r}, expected two raters")
    columns = {group: group_names(group) for group in BIOMARKER_GROUPS} | {SEVERITY: (SEVERITY,)}
    raters = [(trainee, columns)] + ([(specialist, {SPECIALIST: (SEVERITY,)})] if specialist else [])
    merged, notes = table.astype(dict.fromkeys((SEVERITY, SPECIALIST), object)), []
    for rater, its_columns in raters:
        first = _first_ratings(ratings, rater, table["video_id"])
        notes += [f"video {video!r}: not usable, says {rater}" for video in first.index[~first["usable"].astype(bool)]]
        for group, names in its_columns.items():
            into = [SPECIALIST] if group == SPECIALIST else list(names)
            old, new = merged[into], first[list(names)].set_axis(into, axis=1).set_index(merged.index)
            known = old.notna().any(axis=1)
            differs = known & ((old != new) & (old.notna() | new.notna())).any(axis=1)
            takes = new.index[~known | replace]
            merged.loc[takes, into] = new.loc[takes]
            done = "replaced" if replace else "kept"
            notes += [
                f"video {v!r}: the label of {group} differs from {rater}'s, {done}" for v in table["video_id"][differs]
            ]
    return merged, notes


def _first_ratings(ratings: pd.DataFrame, rater: str, videos: Sequence[str]) -> pd.DataFrame:
    """One rater's first look at each video, in the order asked for."""
    if rater not in set(ratings["rater"]):
        raise LusbioError(
            f"no ratings by {rater!r}; there are ratings by {', '.join(ratings['rater'].unique()) or 'nobody'}"
        )
    own = ratings[(ratings["rater"] == rater) & (ratings["repeat"] == 0)].set_index("video_id")
    if missing := [video for video in videos if video not in own.index]:
        advice = f"go on with `lusbio label FOLDER --rater {rater}`, or leave their rows out of cohort.csv"
        raise LusbioError(
            f"{rater!r} has not rated {len(missing)} of {len(videos)} videos: {list_some(missing)}; {advice}"
        )
    return own.loc[videos]


def compare_raters(
    ratings: pd.DataFrame, videos: Sequence[str], between: Sequence[str]
) -> dict[str, list[Answers | None]]:
    """First answers of two raters by video, in an order drawn by lot; None where a video is not usable.

    Raises:
        LusbioError: If one of them is not done, or is not there.
    """
    first, second = (map(answers_of, _first_ratings(ratings, rater, videos).to_dict("records")) for rater in between)
    pairs = {video: [*sides] for video, *sides in zip(videos, first, second, strict=True)}
    return {video: sides[:: -1 if int(text_sha256(video)[0], 16) % 2 else 1] for video, sides in pairs.items()}


def answers_of(rating: dict) -> Answers | None:
    """The answers of a row of ``read_ratings``; None where the video is not usable."""
    bits = {name: None if pd.isna(rating[name]) else int(rating[name]) for name in BIOMARKER_NAMES}
    grade = None if pd.isna(rating[SEVERITY]) else rating[SEVERITY]
    return decode_answers({SEVERITY: grade, "biomarkers": bits}) if rating["usable"] else None


def write_label_studio(ratings: pd.DataFrame, table: pd.DataFrame, path: Path) -> None:
    """Write first ratings as tasks that Label Studio imports, and beside them, as ``.xml``, the setup they fit.

    Args:
        ratings: From ``read_ratings``.
        table: The cohort's table; a task's data are its video's path.
        path: The ``.json`` file.
    """
    first = ratings[ratings["repeat"] == 0].to_dict("records")
    tasks = [
        {
            "data": {"video": row.path},
            "annotations": [_annotate(rating) for rating in first if rating["video_id"] == row.video_id],
        }
        for row in table.itertuples()
    ]
    write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", path)
    write_text("\n".join(["<View>", *_describe_setup(), "</View>", ""]), path.with_suffix(".xml"))


def _annotate(rating: dict) -> dict:
    texts = {option["name"]: option["text"] for group in describe_sheet() for option in group["options"]}
    results = [("rater", "textarea", {"text": [rating["rater"]]})]
    for group, ticked in (answers_of(rating) or {}).items():
        choices = [UNSURE] if ticked is None else [texts[name] for name in ticked]
        results.append((_tag(group), "choices", {"choices": choices}))
    return {
        "result": [
            {"id": name, "from_name": name, "to_name": "video", "type": kind, "value": value}
            for name, kind, value in results
        ],
        "was_cancelled": not rating["usable"],
        "lead_time": None if pd.isna(rating["seconds"]) else rating["seconds"],
    }


def _tag(group: str) -> str:
    return re.sub(r"\W+", "_", group.lower())


def _describe_setup() -> Iterator[str]:
    yield '  <Video name="video" value="$video"/>'
    yield '  <TextArea name="rater" toName="video"/>'
    for group in describe_sheet():
        yield f"  <Header value={quoteattr(group['title'])}/>"
        yield f'  <Choices name="{_tag(group["name"])}" toName="video" choice="multiple">'
        for text in [*(option["text"] for option in group["options"]), UNSURE]:
            yield f"    <Choice value={quoteattr(text)}/>"
        yield "  </Choices>"
