"""Videos of one place of one patient that can be compared: two exams, or two sides at one visit."""

import pandas as pd

from lusbio.cohorts.table import exams_of


def pair_exams(table: pd.DataFrame) -> pd.DataFrame:
    """Consecutive exams of one place of one patient; rows may stand in any order.

    Args:
        table: One row per video, with ``exam``. An empty zone is a place like any other. Where an exam has several
            videos of a place, the first is paired with the first, in the order of their names, and so on.

    Returns:
        One row per pair: ``earlier, later`` (row numbers of the table) and ``group``.
    """
    visit = exams_of(table).groupby(table["patient_id"]).rank("dense").astype(int)
    return _pair(table, table["zone"].fillna(""), visit)


def pair_mirrors(table: pd.DataFrame) -> pd.DataFrame:
    """Left and right of one place at one visit, as ``pair_exams``: ``earlier`` is left. Nothing here is over time."""
    side = table["zone"].str[0].map({"L": 1, "R": 2})
    return _pair(table[side.notna()], table["zone"].str[1:], side.dropna().astype(int))


def _pair(table: pd.DataFrame, place: pd.Series, visit: pd.Series) -> pd.DataFrame:
    """Videos of the same place in visits k and k + 1."""
    known = table[["patient_id", "group_id", "video_id"]].assign(place=place, visit=visit, row=table.index)
    known = known.sort_values("video_id", kind="stable")
    known["nth"] = known.groupby(["patient_id", "place", "visit"]).cumcount()
    keys = ["patient_id", "place", "nth", "visit"]
    pairs = known.merge(known.assign(visit=known["visit"] - 1), on=keys, suffixes=("", "_later"))
    pairs = pairs.rename(columns={"row": "earlier", "row_later": "later", "group_id": "group"})
    return pairs.sort_values("earlier", ignore_index=True)[["earlier", "later", "group"]]
