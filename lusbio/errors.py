"""The errors a person can mend: bad tables, bad videos, bad leaks, full disks."""

import errno
from collections.abc import Sequence
from pathlib import Path


class LusbioError(ValueError):
    """Anything wrong with what was handed in; the command line prints it and exits with 1."""


class CohortError(LusbioError):
    """A cohort's table or folder is not usable.

    Args:
        where: The file or folder the problems are in.
        problems: All of them, one line each.
    """

    def __init__(self, where: str | Path, problems: Sequence[str]):
        self.where = str(where)
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{self.where}: {problem}" for problem in self.problems))

    def __reduce__(self):
        return type(self), (self.where, self.problems)


def refuse(where: str | Path, problems: Sequence[str]) -> None:
    """Raise a ``CohortError`` with all problems at once; nothing happens where there are none."""
    if problems:
        raise CohortError(where, problems)


class VideoError(LusbioError):
    """A file does not decode to a video.

    Args:
        path: The file.
        reason: Why, in a few words.
    """

    def __init__(self, path: str | Path, reason: str):
        self.path = Path(path)
        self.reason = reason
        size = f"{self.path.stat().st_size:,} bytes" if self.path.is_file() else "no such file"
        super().__init__(f"{self.path} ({size}): {reason}")

    def __reduce__(self):
        return type(self), (self.path, self.reason)


class LeakageError(LusbioError):
    """A patient or group stands on both sides of a split."""


_ELSEWHERE = "name another build folder with LUSBIO_BUILD"

WAYS_OUT = {
    errno.ENOSPC: f"make room, or {_ELSEWHERE}",
    errno.EDQUOT: f"make room, or {_ELSEWHERE}",
    errno.EFBIG: "allow larger files (`ulimit -f unlimited`)",
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
}
"""What to do where something cannot be written, by the number of the error."""


def name_way_out(number: int | None) -> str:
    """The end of a sentence about an ``OSError``, by its number: what to do; empty where nobody knows."""
    return f"; {WAYS_OUT[number]}, and start again: what is finished is kept" if number in WAYS_OUT else ""


class NothingToDo(LusbioError):
    """What the rest of a notebook is about is not here: it ends, and that is no failure.

    Raised in a cell, it stops Run All and shows its message alone; ``make paper`` counts the notebook as done.
    """

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()
