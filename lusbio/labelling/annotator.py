"""The annotator: one video after the other, blinded, in Jupyter and as a page. The only module that knows anywidget.

What the browser gets are frames, a number and how far the rater is; ids, paths and other columns stay here. Frames
travel as messages and never as traits, because traits are written into notebooks.
"""

import base64
import io
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import anywidget

from lusbio.cohorts.table import read_table
from lusbio.errors import VideoError
from lusbio.files import file_sha256
from lusbio.labelling.merge import compare_raters
from lusbio.labelling.ratings import ContinuedElsewhereError, RatingLog, choose_order, list_raters, read_ratings
from lusbio.labelling.sheet import (
    GROUPS,
    ORIGIN,
    Answers,
    answer_problems,
    decode_answers,
    describe_sheet,
    encode_answers,
)
from lusbio.videos import read_frames
from lusbio.vocabulary import SEVERITY

LONGEST, QUALITY = 640, 92
"""Longest side of the stills in pixels, and their JPEG quality."""

CHUNK_BYTES = 1_000_000
"""Frames go to the browser in messages of about this size, the first frame alone."""

USUAL_FPS = 25.0
"""Where neither file nor table says how fast a video is."""


class Stills(NamedTuple):
    """A video as the browser shows it: JPEG files, none where it cannot be read; and the sha256 of its file."""

    frames: Sequence[bytes]
    fps: float
    sha256: str | None


class Annotator(anywidget.AnyWidget):
    """Label the videos of a folder.

    Args:
        folder: Holds ``cohort.csv`` and videos.
        rater: Who labels.
        ratings: Where the logs lie; None for ``ratings/`` in the folder.
        between: For a consensus of two raters who are done: their names. Shown are only groups in which they differ,
            side by side without names; where they agree, that is logged at once.
        **settings: For a rater who begins: ``new_rater=True``, ``role``, ``experience``, ``seed``, ``repeats``.

    Raises:
        LusbioError: If the table, the rater or the log is not usable; says what to do.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")

    def __init__(
        self,
        folder: str | Path,
        rater: str,
        *,
        ratings: str | Path | None = None,
        between: Sequence[str] | None = None,
        **settings,
    ):
        super().__init__()
        self._folder = Path(folder)
        self._table = read_table(self._folder / "cohort.csv").set_index("video_id")
        logs = Path(ratings) if ratings else self._folder / "ratings"
        videos, self._sides = list(self._table.index), {}
        if between:
            compared = compare_raters(read_ratings(logs), videos, between)
            self._sides = {video: sides for video, sides in compared.items() if sides[0] != sides[1]}
            settings |= {"between": list(between), "repeats": 0.0, "new_rater": rater not in list_raters(logs)}
        self._log = RatingLog(logs, rater, **settings)
        if between:
            agreed = [video for video in videos if video not in self._sides and (video, 0) not in self._log.ratings]
            self._log.append(*(self._describe(0, (video, 0), compared[video][0]) for video in agreed))
            videos = list(self._sides)
        self._order = choose_order(videos, rater, self._log.session["seed"], self._log.session["repeats"])
        self._pool, self._coming = ThreadPoolExecutor(1), {}
        self.on_msg(self._hear)
        self._prepare(self._find_start())

    def _find_start(self) -> int:
        """Place of the video that was begun, or of the first that is not rated."""
        draft, rated = self._log.read_draft() or {}, self._log.ratings
        begun = (draft.get("video_id"), draft.get("repeat"))
        if begun in rated and _is_saved(draft, rated[begun]):  # its writer was killed before it removed the draft
            begun = None
        return next((k for k, item in enumerate(self._order) if item == begun or item not in rated), len(self._order))

    # --- videos ---

    def _prepare(self, place: int) -> Future | None:
        """Read the video of a place in the background; those far from it are forgotten."""
        if place >= len(self._order):
            return None
        self._coming = {k: future for k, future in self._coming.items() if abs(k - place) <= 1}
        return self._coming.setdefault(place, self._pool.submit(self._read, self._order[place][0]))

    def _read(self, video: str) -> Stills:
        row = self._table.loc[video]
        path = self._folder / row["path"]
        try:
            frames, info = read_frames(path, LONGEST)
            known = [fps for fps in (row["fps"], info.fps) if fps and fps > 0]
            return Stills([_to_jpeg(frame) for frame in frames], (known or [USUAL_FPS])[0], file_sha256(path))
        except (VideoError, OSError):
            return Stills([], USUAL_FPS, None)

    def _show(self, place: int) -> None:
        """Send a video with what is known of it: the draft, or else the rating that counts."""
        if place >= len(self._order):
            self.send({"say": "done", "total": len(self._order)})
            return
        video, repeat = self._order[place]
        stills, rated = self._prepare(place).result(), self._log.ratings.get((video, repeat))
        answers, asked = self._sheet_of(video)
        state = {"usable": bool(stills.frames), "answers": answers, "comment": "", "seconds": 0.0}
        if rated:
            state |= {name: rated[name] for name in ("usable", "comment", "seconds")}
            state["answers"] = decode_answers(rated) if rated["usable"] else answers
        draft = self._log.read_draft() or {}
        if (draft.get("video_id"), draft.get("repeat")) == (video, repeat):
            state |= {name: draft[name] for name in state}
        depth = self._table.loc[video, "depth_mm"]
        self.send(
            {
                "say": "video",
                "number": place + 1,
                "total": len(self._order),
                "frames": len(stills.frames),
                "fps": stills.fps,
                "depth_mm": None if depth != depth else depth,
                "asked": asked,
                "sides": [{} if side is None else side for side in self._sides.get(video, ())],
                **state,
            }
        )
        self._send_frames(place + 1, stills.frames)
        self._prepare(place + 1)

    def _send_frames(self, number: int, frames: Sequence[bytes]) -> None:
        begin, size = 0, 0
        for end, frame in enumerate(frames, start=1):
            size += len(frame)
            if end == 1 or size >= CHUNK_BYTES or end == len(frames):
                content, chunk = {"say": "frames", "number": number, "first": begin}, frames[begin:end]
                if "google.colab" in sys.modules:  # whose messages have no buffers
                    self.send(content | {"base64": [base64.b64encode(data).decode() for data in chunk]})
                else:
                    self.send(content, buffers=list(chunk))
                begin, size = end, 0

    def _sheet_of(self, video: str) -> tuple[Answers, list[str]]:
        """Answers that are given, and groups that are asked: all, or of a consensus those in dispute."""
        first, second = self._sides.get(video, (None, None))
        if first is None or second is None:
            return {}, list(GROUPS)
        asked = [group for group in GROUPS if first[group] != second[group]]
        asked += [ORIGIN] if "B-lines" in asked and ORIGIN not in asked else []
        return {group: ticked for group, ticked in first.items() if group not in asked}, asked

    # --- the rater ---

    def _hear(self, _: object, message: dict, __: list) -> None:
        """Do what the browser asks for, and say what became of it."""
        heard, acts = {"request": message.get("request")}, (self._open, self._go, self._tick, self._save)
        try:
            {act.__name__.strip("_"): act for act in acts}[message["do"]](message, heard)
        except ContinuedElsewhereError:
            self.send(heard | {"say": "over", "text": "continued in another window; close this one"})
        except OSError as error:
            self.send(heard | {"say": "failed", "text": error.strerror or type(error).__name__})
        except Exception as error:  # a page shows no traceback, and its text could name the video
            traceback.print_exc()
            self.send(heard | {"say": "failed", "text": f"{type(error).__name__} in Python"})

    def _open(self, _: dict, __: dict) -> None:
        self.send({"say": "sheet", "groups": describe_sheet()})
        self._show(self._find_start())

    def _go(self, message: dict, _: dict) -> None:
        self._show(min(max(0, message["number"] - 1), len(self._order)))

    def _tick(self, message: dict, heard: dict) -> None:
        video, repeat = self._order[message["number"] - 1]
        state = {name: message[name] for name in ("usable", "answers", "comment", "seconds")}
        self._log.keep_draft({"video_id": video, "repeat": repeat, **state})
        self.send(heard | {"say": "kept"})

    def _save(self, message: dict, heard: dict) -> None:
        place = message["number"] - 1
        item, answers = self._order[place], message["answers"] if message["usable"] else None
        if problems := answers is not None and answer_problems(answers):
            self.send(heard | {"say": "refused", "text": "; ".join(problems)})
            return
        rating = self._describe(place + 1, item, answers, message["seconds"], message["comment"])
        before = self._log.ratings.get(item, {})
        if any(before.get(name) != rating[name] for name in ("usable", SEVERITY, "biomarkers", "comment")):
            rating["sha256"] = self._prepare(place).result().sha256
            self._log.append(rating)
        self._log.keep_draft(None)
        self.send(heard | {"say": "saved"})
        self._show(place + 1)

    def _describe(
        self, position: int, item: tuple[str, int], answers: Answers | None, seconds: float = 0.0, comment: str = ""
    ) -> dict:
        video, repeat = item
        rating = {"position": position, "video_id": video, "sha256": None, "repeat": repeat}
        rating |= {"usable": answers is not None, **encode_answers(answers or {})}
        return rating | {"seconds": round(seconds, 1), "comment": comment}


def _is_saved(draft: dict, rating: dict) -> bool:
    """Whether a rating says all that a draft says."""
    said = {"usable": draft["usable"], "comment": draft["comment"]}
    said |= encode_answers(draft["answers"] if draft["usable"] else {})
    return all(rating[name] == value for name, value in said.items())


def _to_jpeg(frame) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "jpeg", quality=QUALITY)
    return file.getvalue()
