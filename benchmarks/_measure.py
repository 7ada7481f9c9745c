"""Timing that a busy machine does not spoil, and one way to report it: a table to read and a JSON file.

What is compared is timed in turn, a, b, a, b, ..., in one process: whatever else the machine does, it does to both.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from lusbio.files import build_folder, write_json


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        what: What was measured.
        value: The number.
        unit: Of the number and of the goal; empty for a ratio.
        goal: What it should be; None where nothing is asked.
        at_least: Whether the goal is the least (True) or the most (False) that will do.
    """

    what: str
    value: float
    unit: str = ""
    goal: float | None = None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        return bool(self.value >= self.goal if self.at_least else self.value <= self.goal)


def time_in_turn(
    blocks: dict[str, Callable[[], object]],
    rounds: int,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run several things one after the other, again and again.

    Args:
        blocks: What to run, by name; on a GPU each waits for its own results.
        rounds: How often each is timed.
        warmups: Rounds before, that do not count.
        clock: Gives seconds; ``time.process_time`` counts only those in which this process computed.

    Returns:
        Seconds of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    for number in range(warmups + rounds):
        for name, block in blocks.items():
            start = clock()
            block()
            if number >= warmups:
                seconds[name].append(clock() - start)
    return seconds


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """How many times as long one thing takes as another that was timed in turn with it.

    Args:
        above: Seconds of each round.
        below: Seconds of the other in the same rounds.

    Returns:
        The median over rounds of the ratio within a round: load that lasts longer than a round cancels.

    Raises:
        ValueError: If the numbers of rounds differ.
    """
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def report(name: str, findings: Sequence[Finding], **details) -> Path:
    """Print a table and write the same, with the machine and anything else, as JSON.

    Args:
        name: Of the script.
        findings: Lines of the table.
        **details: Plain values that go into the file as they are, e.g. seconds of every round.

    Returns:
        The file, ``benchmarks/<name>.json`` in the build folder.
    """
    machine = describe_machine()
    print(f"{name}: {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}; load {machine['load']:.1f}")
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"  {finding.what:<{width}}  {format_value(finding)}".rstrip())
    path = build_folder("benchmarks", f"{name}.json")
    lines = [asdict(finding) | {"reached": finding.reached} for finding in findings]
    write_json({"machine": machine, "findings": lines, "details": details}, path)
    return path


def format_value(finding: Finding) -> str:
    """Value, unit, goal and verdict of a finding, e.g. ``"0.97       at least 0.95   reached"``.

    Args:
        finding: Any.

    Returns:
        One line; without a goal only value and unit.
    """
    value = f"{finding.value:>9.3g} {finding.unit:<10}"
    if finding.goal is None:
        return value.rstrip()
    bound = "at least" if finding.at_least else "at most"
    return f"{value} {bound} {finding.goal:g} {finding.unit:<10} {'reached' if finding.reached else 'MISSED'}"


def describe_machine() -> dict:
    """What the numbers depend on besides the code: ``cpu, cores, torch, python, load``.

    Returns:
        Plain values; ``load`` is the number of busy processes over the last minute, ours included.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that does not say
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
