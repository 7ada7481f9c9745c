"""Two people who rated the same public videos without knowing of each other.

POCOVID's severities (Gare et al. 2022) and COVIDx-US' scores (Ebadi et al. 2021) use the same grades,
0 to 3, and 32 videos stand in both collections under different names. ``registry/two_raters.csv`` says
which; the scores themselves are read from the data folder.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.download import REGISTRY_FOLDER, read_published_table
from lusbio.cohorts.pocovid import NAME as POCOVID
from lusbio.cohorts.pocovid import read_videos
from lusbio.errors import CohortError
from lusbio.vocabulary import TASKS

COVIDX_US = "covidx_us"
SCORES_FILE = "LUSS_metadata.csv"


def read_public_raters(data_folder: Path) -> pd.DataFrame:
    """The grades of both raters for the videos that both rated. No video is needed for it.

    Args:
        data_folder: Holds ``pocovid/`` and ``covidx_us/`` (at least their tables).

    Returns:
        One row per video: ``video_id`` (POCOVID's), ``group_id`` (what may show one person, see
        ``conservative_groups``), ``pocovid`` and ``covidx_us`` (class indices of ``lung_severity``, int64),
        ``matched_by`` (how the pair was found; matches by title are the least certain).

    Raises:
        CohortError: If a table is missing (says how to get it), or a pair has no grade there.

    Source: the matching is ours, by file name, by title and by hand.
    """
    data_folder = Path(data_folder)
    pairs = pd.read_csv(REGISTRY_FOLDER / "two_raters.csv")
    rows = read_videos(data_folder / POCOVID).drop_duplicates("Filename").set_index("Filename")
    scores = read_published_table(data_folder / COVIDX_US, SCORES_FILE, COVIDX_US, ["id", "LUSS"])
    names = pairs["pocovid_filename"]
    found = pd.DataFrame({"video_id": names, "group_id": names.map(rows["group_id"])})
    found["pocovid"] = _grades(names.map(rows["Lung Severity Score"]))
    found["covidx_us"] = _grades(pairs["covidx_us_id"].map(scores.set_index("id")["LUSS"]))
    found["matched_by"] = pairs["matched_by"]
    problems = [
        f"no grade of {column} for video {video!r}; is this the published table?"
        for column in ("pocovid", "covidx_us")
        for video in found["video_id"][found[column] < 0]
    ]
    if problems:
        raise CohortError(data_folder, problems)
    return found


def _grades(cells: pd.Series) -> np.ndarray:
    """Class indices, int64, -1 where there is no grade."""
    return pd.Index(TASKS["lung_severity"].classes).get_indexer(cells)
