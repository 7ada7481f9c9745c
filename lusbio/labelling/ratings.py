"""What raters said: an append-only log for each, the order in which they see videos, and what is made of the logs.

``ratings/r1.jsonl`` holds one event a line: a session for every opening of the annotator, and ratings, of which the
last one of a video counts. Nothing in it is ever changed.
"""

import contextlib
import difflib
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

import lusbio
from lusbio.cohorts.table import read_cells
from lusbio.errors import LusbioError, refuse
from lusbio.files import file_sha256, text_sha256, write_json
from lusbio.labelling.sheet import VOCABULARY, answer_problems, decode_answers, encode_answers
from lusbio.vocabulary import BIOMARKER_NAMES, SEVERITY

RATER_NAME = re.compile(r"[a-z0-9_-]{1,32}")
ROLES = ("trainee", "specialist")
SEED, REPEATS = 0, 0.1
LOCK_SECONDS = 5
SESSION, RATING = b'"event":"session"', b'"event":"rating"'
"""How lines begin. (A quotation mark within a comment has a backslash before it.)"""

OF_SESSION = ("rater", "role", "experience", "seed", "blinded", "assisted")
RATING_COLUMNS = (
    *OF_SESSION,
    *("session", "at", "position", "video_id", "sha256", "repeat", "usable", "seconds", "comment", SEVERITY),
    *BIOMARKER_NAMES,
)
"""Columns of ``read_ratings``."""


class ContinuedElsewhereError(LusbioError):
    """A newer session of the same rater has begun: the older one may not write any more."""


def choose_order(
    videos: Sequence[str], rater: str, seed: int = SEED, repeats: float = REPEATS
) -> list[tuple[str, int]]:
    """The order in which a rater sees videos: another one for each rater, and the same when videos are added.

    Args:
        videos: Their ids.
        rater: The rater's name.
        seed: Another seed, another order.
        repeats: Share of the videos, in [0, 1], that come back when all were seen; at least one, unless it is 0.

    Returns:
        Pairs of video and repeat: 0 for all, then 1 for those that come back.

    Example:
        >>> choose_order(["a", "b", "c"], "r1", repeats=0.3)
        [('b', 0), ('c', 0), ('a', 0), ('b', 1)]
    """
    first = sorted(videos, key=lambda video: text_sha256(seed, rater, video))
    again = sorted(videos, key=lambda video: text_sha256(seed, rater, video, "again"))
    return [(video, 0) for video in first] + [
        (video, 1) for video in again[: math.ceil(round(repeats * len(videos), 9))]
    ]


# --- one rater's log ---


class RatingLog:
    """The log of one rater, opened to be written: that begins a session, and ends what an older one may write.

    Args:
        folder: Where the ratings lie.
        rater: Lower-case letters, digits, ``_`` and ``-``.
        new_rater: The rater has rated nothing yet.
        settings: Of the session: ``role, experience``; ``seed, repeats``, which stay as they began; ``between``, the
            two raters of a consensus.

    Attributes:
        session: The event that began it.
        ratings: The rating that counts, by video and repeat.

    Raises:
        LusbioError: If the name, the folder or the log is not usable; says what to do.
    """

    def __init__(self, folder: Path, rater: str, *, new_rater: bool = False, **settings):
        check_rater(folder, rater, new_rater=new_rater)
        self.rater, self.path, self.draft_path = rater, folder / f"{rater}.jsonl", folder / f"{rater}.draft.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self.path.touch()
                _drop_cut_line(self.path)
                sessions, ratings, problems = read_log(self.path)
        except OSError as error:
            raise LusbioError(_say_unwritable(folder, error)) from error
        refuse(self.path, problems)
        self.ratings = {(rating["video_id"], rating["repeat"]): rating for rating in ratings}
        self.session = self._describe_session(next(reversed(sessions.values()), {}), settings)
        self._end = None
        try:
            self._append([self.session])
        except OSError as error:
            raise LusbioError(_say_unwritable(folder, error)) from error

    def _describe_session(self, before: dict, settings: dict) -> dict:
        asked = {name: value for name, value in settings.items() if value is not None}
        for name in ("seed", "repeats", "between"):
            if self.ratings and name in asked and asked[name] != before.get(name):
                raise LusbioError(
                    f"{self.rater!r} began with {name} {before.get(name)}; leave out {name} {asked[name]}"
                )
        given = {"role": "", "experience": "", "seed": SEED, "repeats": REPEATS} | before | asked
        if given["role"] not in ("", *ROLES) or not 0 <= given["repeats"] <= 1:
            found = f"role {given['role']!r}, repeats {given['repeats']}"
            raise LusbioError(f"{found}: expected {' or '.join(ROLES)}, and a share from 0 to 1")
        session = {"event": "session", "at": _now(), "session": secrets.token_hex(4), "rater": self.rater}
        session |= {name: given[name] for name in ("role", "experience", "seed", "repeats")}
        session |= {"blinded": "between" not in given, "assisted": False}
        session |= {"between": list(given["between"])} if "between" in given else {}
        return session | {"lusbio": lusbio.__version__, "vocabulary": VOCABULARY}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with filelock.FileLock(self.path.with_name(f".{self.rater}.lock"), timeout=LOCK_SECONDS):
            yield

    def append(self, *ratings: dict) -> None:
        """Log ratings: they are on the disk when this returns, and not in the log at all when it raises.

        Args:
            *ratings: ``position, video_id, sha256, repeat, usable, lung_severity, biomarkers, seconds, comment``.

        Raises:
            ContinuedElsewhereError: If another window has begun a session since.
            OSError: If the disk does not take it.
        """
        begin = {"event": "rating", "at": _now(), "session": self.session["session"]}
        events = [begin | rating for rating in ratings]
        self._append(events)
        self.ratings |= {(event["video_id"], event["repeat"]): event for event in events}

    def _append(self, events: list[dict]) -> None:
        data = "".join(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in events).encode()
        with self._locked():
            self._check_newest()
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                before = os.fstat(file).st_size
                try:
                    if os.write(file, data) < len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                    os.fsync(file)
                except OSError:
                    os.ftruncate(file, before)
                    raise
                self._end = before + len(data)
            finally:
                os.close(file)

    def _check_newest(self) -> None:
        """Raise if somebody began a session since our last line; nobody reads what did not grow."""
        if self._end is None or self.path.stat().st_size == self._end:
            return
        with self.path.open("rb") as file:
            file.seek(self._end)
            if SESSION in file.read():
                raise ContinuedElsewhereError(f"{self.rater!r} is continued in another window; this one is over")

    def keep_draft(self, draft: dict | None) -> None:
        """Replace what is ticked and not saved, atomically; None removes it. Raises what ``append`` raises."""
        with self._locked():
            self._check_newest()
            if draft is None:
                self.draft_path.unlink(missing_ok=True)
            else:
                write_json(draft, self.draft_path)

    def read_draft(self) -> dict | None:
        """What was ticked and not saved; None where there is nothing, or nothing that can be read."""
        try:
            return json.loads(self.draft_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def check_rater(folder: Path, rater: str, *, new_rater: bool = False) -> None:
    """Raise a ``LusbioError`` unless there is such a rater, or ought to be a new one and is none."""
    if not RATER_NAME.fullmatch(rater):
        raise LusbioError(f"rater {rater!r}: expected 1 to 32 of a-z, 0-9, _ and -, e.g. 'r1'")
    known, path = list_raters(folder), folder / f"{rater}.jsonl"
    if new_rater and path.is_file() and RATING in path.read_bytes():
        raise LusbioError(
            f"rater {rater!r} has rated in {folder}: leave --new-rater out to go on, or take another name"
        )
    if not new_rater and rater not in known:
        near = difflib.get_close_matches(rater, known, n=1, cutoff=0.5)
        meant = f" (is {near[0]!r} meant?)" if near else ""
        raise LusbioError(f"no rater {rater!r} in {folder}{meant}; a new one begins with --new-rater (new_rater=True)")


def list_raters(folder: Path) -> list[str]:
    """Who has a log in a folder."""
    return sorted(path.stem for path in folder.glob("[!.]*.jsonl"))


def _say_unwritable(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written ({error.strerror or error}); name another folder with --ratings (ratings=)"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _drop_cut_line(path: Path) -> None:
    """Cut off what follows the last end of a line: its writer was killed before it said that it is saved."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


# --- all logs ---


def read_log(path: Path) -> tuple[dict[str, dict], list[dict], list[str]]:
    """Read a log without judging it.

    Returns:
        Sessions by their id and ratings, both in the order of the file, and a line for everything that is wrong. A last
        line without its end is no problem: it was never said to be saved.
    """
    sessions: dict[str, dict] = {}
    ratings, problems = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            event = json.loads(line)
            if event["event"] == "session":
                sessions[event["session"]] = event
                if event["vocabulary"] != VOCABULARY:
                    problems.append(_say_other_vocabulary(number, event))
            else:
                problems += [f"line {number}: {problem}" for problem in _rating_problems(event)]
                ratings.append(event | {name: sessions[event["session"]][name] for name in OF_SESSION})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(
                f"line {number} is damaged ({type(error).__name__}: {error}); mend it, or take it out of a "
                "copy of the file; nothing was overwritten"
            )
    return sessions, ratings, problems


def _say_other_vocabulary(number: int, session: dict) -> str:
    found = f"{session['vocabulary']} of lusbio {session['lusbio']}, here {VOCABULARY} of {lusbio.__version__}"
    return f"line {number}: another vocabulary ({found}); go on with that version, or as a rater of another name"


def _rating_problems(event: dict) -> list[str]:
    """Of a rating: rules that it breaks; raises where it is none."""
    missing = [name for name in ("at", "position", "video_id", "sha256", "seconds", "comment") if name not in event]
    answers = decode_answers(event)
    if missing or event["repeat"] not in (0, 1) or event["event"] != "rating":
        raise ValueError(f"{event['event']!r} without {', '.join(missing) or 'a repeat of 0 or 1'}")
    if encode_answers(answers) != {name: event[name] for name in (SEVERITY, "biomarkers")}:
        raise ValueError("findings other than 1, 0 and null, or a group that is known in part")
    return answer_problems(answers) if event["usable"] else []


def read_ratings(folder: Path) -> pd.DataFrame:
    """All ratings that count.

    Args:
        folder: Holds the logs.

    Returns:
        One row per rater, video and repeat, ``RATING_COLUMNS``, by rater and in the order they were begun. Biomarkers
        are float64 1, 0 or NaN (unsure, or the video is not usable), ``at`` is UTC.

    Raises:
        CohortError: If a line is damaged, or was given in another vocabulary.
    """
    rows: dict[tuple, dict] = {}
    for rater in list_raters(folder):
        _, ratings, problems = read_log(folder / f"{rater}.jsonl")
        refuse(folder / f"{rater}.jsonl", problems)
        rows |= {(rater, r["video_id"], r["repeat"]): r | r["biomarkers"] for r in ratings}
    table = pd.DataFrame(rows.values(), columns=list(RATING_COLUMNS))
    table[list(BIOMARKER_NAMES)] = table[list(BIOMARKER_NAMES)].astype("float64")
    table[SEVERITY] = table[SEVERITY].astype(object).where(table[SEVERITY].notna(), np.nan)
    return table.assign(at=pd.to_datetime(table["at"], utc=True), seconds=table["seconds"].astype("float64"))


def rating_problems(folder: Path, ratings: Path | None = None) -> list[str]:
    """Everything that is wrong with the ratings of a cohort's folder; empty when there are none.

    Args:
        folder: Holds ``cohort.csv`` and videos.
        ratings: Where the logs lie; None for ``ratings/`` in it.

    Returns:
        One line per problem: damaged lines, another vocabulary, broken rules, videos that are unknown or have changed.
    """
    ratings, problems = ratings or folder / "ratings", []
    rows = read_cells(folder / "cohort.csv").reindex(columns=["video_id", "path"]).itertuples(index=False)
    files = {video: folder / str(path) for video, path in rows}
    hashes: dict[str, str | None] = {}
    for rater in list_raters(ratings):
        name, (_, found, its_problems) = f"ratings of {rater!r}", read_log(ratings / f"{rater}.jsonl")
        problems += [f"{name}: {problem}" for problem in its_problems]
        for video, sha256 in {rating["video_id"]: rating["sha256"] for rating in found}.items():
            if video not in files:
                problems.append(f"{name}: video {video!r} has no row in cohort.csv; give it back its row")
            elif sha256 and files[video].is_file():
                hashes.setdefault(video, file_sha256(files[video]))
                if hashes[video] != sha256:
                    advice = "restore it, or give the new file a row and a video_id of its own"
                    problems.append(f"{name}: the file of video {video!r} has changed since it was rated; {advice}")
    return problems
