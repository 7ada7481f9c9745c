"""Fetching the public cohorts: pinned commits, checksums, and what is missing said once.

Nothing is fetched unless somebody asks (``lusbio fetch``). ``registry/<name>.csv`` lists path,
bytes and sha256 of every upstream file; a file counts as present only when its bytes are those.
"""

import os
from collections import namedtuple
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np
import pandas as pd

from lusbio.cohorts.table import list_some, read_cells
from lusbio.errors import LusbioError, refuse
from lusbio.files import data_folder, file_sha256, write_csv
from lusbio.videos import VIDEO_SUFFIXES

EMERGENCY_LICENSE = "COVID-19 emergency license"
"""Licence of some POCOVID videos that allows use only during the pandemic: left out unless asked for."""

REGISTRY_FOLDER = Path(__file__).with_name("registry")

LOST_CONNECTIONS = 3
"""Files in a row that fail for want of a connection before the rest is not tried. (Engineering choice.)"""

NOT_TRIED = "not tried"

UPSTREAM = "https://raw.githubusercontent.com"

RETRIES = 2
"""Further attempts after a failed one, per file."""


Source = namedtuple("Source", "name repository commit prefix licence citation")
"""Where a public cohort comes from: a row of ``registry/sources.csv``, all text.

Attributes:
    name: Its name and folder, e.g. ``"pocovid"``.
    repository: GitHub repository, ``owner/name``.
    commit: The commit that the checksums belong to.
    prefix: Start of the upstream paths that the local folder does without.
    licence: Under which terms it may be used.
    citation: What to cite.
"""


class FetchReport(namedtuple("FetchReport", "source folder unit total present fetched left_out")):
    """What of a public cohort is in a folder, after its bytes were checked.

    Attributes:
        source, folder: The cohort, and where it is.
        unit: What is counted: ``"videos"``, or ``"files"`` where there are none.
        total: Their number upstream.
        present: Their number in the folder with the published bytes.
        fetched: Files that this call downloaded.
        left_out: Local paths that were not asked for (``EMERGENCY_LICENSE``), a tuple.
    """

    def presence(self) -> str:
        """One line: how much is there."""
        left_out = f" ({len(self.left_out)} under the {EMERGENCY_LICENSE!r} are left out)" if self.left_out else ""
        return f"{self.source.name}: {self.present} of {self.total} {self.unit} present in {self.folder}{left_out}"

    def __str__(self) -> str:
        """What is there, the licence and what to cite; ends without a newline."""
        return f"{self.presence()}\nlicence: {self.source.licence}\ncite: {self.source.citation}"


def find_source(name: str) -> Source:
    """The public source of a name.

    Args:
        name: ``"covid_blues"``, ``"pocovid"``, ``"covidx_us"`` or ``"model"``: a row of ``registry/sources.csv``.

    Returns:
        The source.

    Raises:
        LusbioError: If there is none; names the value and the possible ones.

    Example:
        >>> find_source("pocovid").repository
        'jannisborn/covid19_ultrasound'
    """
    sources = pd.read_csv(REGISTRY_FOLDER / "sources.csv", keep_default_na=False).set_index("name", drop=False)
    if name not in sources.index:
        raise LusbioError(f"nothing to fetch is called {name!r}; there are {', '.join(sources.index)}")
    return Source(**sources.loc[name])


def read_registry(name: str) -> pd.DataFrame:
    """The upstream files of a public cohort (as for ``find_source``).

    Returns:
        One row per file: ``path`` (upstream, POSIX), ``bytes`` (int), ``sha256`` (64 hex digits).
    """
    path = REGISTRY_FOLDER / f"{find_source(name).name}.csv"
    if not path.is_file():
        raise LusbioError(f"{path}: no such file; this version of lusbio was released without a {name}")
    return pd.read_csv(path)


def write_registry(folder: Path, name: str) -> None:
    """List the files of a folder as what is upstream, as a release needs it of its model."""
    prefix, files = find_source(name).prefix, sorted(folder.glob("[!.]*"))
    rows = [(f"{prefix}{file.name}", file.stat().st_size, file_sha256(file)) for file in files]
    write_csv(pd.DataFrame(rows, columns=["path", "bytes", "sha256"]), REGISTRY_FOLDER / f"{name}.csv")


def read_published_table(folder: Path, file: str, name: str, columns: Collection[str]) -> pd.DataFrame:
    """Read a table of a public cohort as text, byte for byte as published.

    Args:
        folder: The cohort's local folder.
        file: The table's name in it.
        name: The source, for the error.
        columns: Columns that have to be there.

    Returns:
        All columns as text, blanks at the ends stripped, empty cells ``""``.

    Raises:
        CohortError: If the file is missing (says how to get it), unreadable, or lacks a column.
    """
    path = Path(folder) / file
    table = read_cells(path, how_to_get(name)).fillna("")
    missing = [column for column in columns if column not in table]
    refuse(path, [f"column {column!r} is missing; is this the published file?" for column in missing])
    return table.apply(lambda cells: cells.str.strip())


def how_to_get(name: str) -> str:
    """The advice that ends every error about an absent public cohort."""
    return f"get it with `lusbio fetch {name}`, or set LUSBIO_DATA to the folder that holds {name}/"


def fetch(name: str, *, folder: Path | None = None, include_emergency_license: bool = False) -> FetchReport:
    """Download what is missing of a public cohort, and check every file.

    Files that are there with the right sha256 are kept, wrong ones are fetched again, and a
    download gets its name only after its sha256 was found right. A file that fails does not stop
    the others; ``LOST_CONNECTIONS`` files in a row without a connection do.

    Args:
        name: As for ``find_source``; ``$LUSBIO_<NAME>_URL``, e.g. ``LUSBIO_POCOVID_URL``, is where else to get it from.
        folder: Where to; default ``data_folder()/name``.
        include_emergency_license: Fetch POCOVID's videos under ``EMERGENCY_LICENSE`` too.

    Returns:
        The report of a complete cohort: nothing is missing.

    Raises:
        LusbioError: If anything is missing at the end: one message with what, and why.
    """
    source = find_source(name)
    folder = folder or data_folder() / name
    variable = f"LUSBIO_{name.upper()}_URL"
    base_url = os.environ.get(variable, source.repository and f"{UPSTREAM}/{source.repository}/{source.commit}")
    if not base_url:
        raise LusbioError(f"{variable} is not set; expected the address of a release, below which its files lie")
    files = _compare(source, folder)
    wrong = files[files["reason"] != ""]
    tables, videos = wrong.index[~wrong["is_video"]], wrong.index[wrong["is_video"]]
    downloads = _Downloads(folder, base_url, files)
    # Tables first: POCOVID's says which videos are not to be fetched.
    files.loc[tables, "reason"] = downloads.fetch_all(tables)
    left_out = () if include_emergency_license else _left_out(source, folder, files)
    if left_out is not None:
        wanted = videos.difference(left_out, sort=False)
        files.loc[wanted, "reason"] = downloads.fetch_all(wanted)
    absent = files["reason"][files["reason"] != ""]
    unit, counted = ("videos", files.index[files["is_video"]]) if files["is_video"].any() else ("files", files.index)
    present, fetched = len(counted.difference(absent.index)), len(wrong) - len(absent)
    report = FetchReport(source, folder, unit, len(counted), present, fetched, left_out or ())
    if len(missing := absent.drop(list(report.left_out), errors="ignore")):
        raise LusbioError(_failure(report, missing, base_url, downloads.gave_up))
    return report


def _compare(source: Source, folder: Path) -> pd.DataFrame:
    """The registry by local path, tables first, with ``is_video`` and why a file is not present.

    That is the column ``reason``, ``""`` where the file is present.
    """
    files = read_registry(source.name)
    files = files.set_index(files["path"].str.removeprefix(source.prefix))
    right = [
        (folder / local).is_file() and file_sha256(folder / local) == sha for local, sha in files["sha256"].items()
    ]
    files["reason"] = np.where(right, "", "not fetched, as the table with its licence is not here")
    files["is_video"] = [PurePosixPath(local).suffix.lower() in VIDEO_SUFFIXES for local in files.index]
    return files.sort_values("is_video", kind="stable")


def _left_out(source: Source, folder: Path, files: pd.DataFrame) -> tuple[str, ...] | None:
    """Videos under the emergency licence; None where the table that says so is not here."""
    if source.name != "pocovid":
        return ()
    if files.loc["dataset_metadata.csv", "reason"]:
        return None
    rows = read_published_table(folder, "dataset_metadata.csv", source.name, ["Filename", "License"])
    barred = set(rows.loc[rows["License"] == EMERGENCY_LICENSE, "Filename"])
    return tuple(local for local in files.index[files["is_video"]] if PurePosixPath(local).stem in barred)


class _Downloads:
    """Downloads files one after the other and gives up when the connection is gone."""

    def __init__(self, folder: Path, base_url: str, files: pd.DataFrame):
        import pooch

        pooch.get_logger().setLevel("ERROR")
        urls = (base_url + "/" + files["path"].map(quote)).to_dict()
        hashes = ("sha256:" + files["sha256"]).to_dict()
        self.store = pooch.create(folder, "", registry=hashes, urls=urls, retry_if_failed=RETRIES)
        self.sizes = files["bytes"]
        self.lost_in_a_row = 0
        self.gave_up = ""  # or why the remaining files are not tried

    def fetch_all(self, names: pd.Index) -> list[str]:
        """Fetch files; returns why each failed, or nothing."""
        from tqdm import tqdm

        reasons, total = [], self.sizes[names].sum()
        with tqdm(desc="fetching", total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            for local in names:
                reasons.append(NOT_TRIED if self.gave_up else self._fetch_one(local))
                bar.update(self.sizes[local])
        return reasons

    def _fetch_one(self, local: str) -> str:
        """Fetch one file; returns why it failed, or nothing."""
        import pooch
        import requests

        lost, reason = False, ""
        try:
            self.store.fetch(local, downloader=pooch.HTTPDownloader(timeout=30))
        except requests.HTTPError as error:
            status = error.response.status_code
            # Only "no such file" concerns this file alone; a server that refuses refuses all.
            lost, reason = status not in (404, 410), f"the server answered {status}"
        except requests.RequestException as error:
            lost, reason = True, f"no connection, or one that broke ({type(error).__name__})"
        except ValueError:
            reason = "arrived with a wrong sha256 and was thrown away"
        except OSError as error:
            self.gave_up = reason = f"{self.store.path} cannot be written ({error.strerror or error})"
        self.lost_in_a_row = self.lost_in_a_row + 1 if lost else 0
        if self.lost_in_a_row >= LOST_CONNECTIONS:
            self.gave_up = f"{self.lost_in_a_row} files in a row failed, the last because: {reason}"
        return reason


def _failure(report: FetchReport, missing: pd.Series, base_url: str, gave_up: str) -> str:
    """The one message about everything that is missing: reasons by local path."""
    rest = missing.index[missing == NOT_TRIED].tolist()
    lines = [report.presence(), f"{len(missing)} files could not be fetched from {base_url}:"]
    lines += [f"  {local}: {reason}" for local, reason in missing.items() if reason != NOT_TRIED]
    if rest:
        lines.append(f"  not tried any more, as {gave_up}: {len(rest)} files: {list_some(rest, most=3)}")
    lines.append(f"What is here can be used as it is; `lusbio fetch {report.source.name}` fetches the rest.")
    return "\n".join(lines)
