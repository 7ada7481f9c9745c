"""Does what a paper finds depend on how its machine computes? Papers of the same cohort and seeds, side by side.

The committed paper comes first; each of the others is the folder of tables of one that was made apart from it, e.g.

    LUSBIO_PRECISION=32-true LUSBIO_BUILD=../build32 LUSBIO_FIGURES=../figures32 make paper
    .venv/bin/python experiments/arithmetic.py --run ../figures32/laptop/synthetic
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import ROOT, Table
from lusbio.runs.study import open_study

COMMITTED = ROOT / "figures" / "laptop" / "synthetic"

NOTE = (
    "AUC, percent; biomarkers minus end to end, 95 % interval over patients and runs, as in the verdict of each paper. "
    "Cohort, folds, seeds and settings are the same; where a machine rounds differently, other networks are learnt. "
    "What differs between the papers is therefore what one more training decides. Minutes of the whole paper, by the "
    "notebooks that all of them have, beside whatever else the machine did."
)

FILES = "run.json", "timing.json", "differences.csv", "verdict.csv"
"""What is read of each paper."""

COLUMNS = ["made", "commit", "minutes", "task", "title", "biomarkers", "end_to_end"]
COLUMNS += ["difference", "ci_low", "ci_high", "verdict"]


def read_paper(folder: Path) -> tuple[dict, dict[str, float], pd.DataFrame]:
    """How a paper was made, the minutes of its notebooks, and its verdicts, a row per task.

    Args:
        folder: With the ``FILES`` of a paper.

    Raises:
        LusbioError: If one of them is missing.
    """
    files = [folder / name for name in FILES]
    if missing := [file.name for file in files if not file.is_file()]:
        raise LusbioError(f"{folder}: has no {', '.join(missing)}; `make paper` writes them")
    run, timing = (json.loads(file.read_text(encoding="utf-8")) for file in files[:2])
    differences, verdicts = map(pd.read_csv, files[2:])
    return run, timing["notebooks"], differences.merge(verdicts, on="task", validate="one_to_one")


def compare(folders: list[Path]) -> Table:
    """The verdicts of several papers of one cohort.

    Raises:
        LusbioError: If they are about other videos or splits.
    """
    papers = [read_paper(folder) for folder in folders]
    shared = set.intersection(*(set(minutes) for _, minutes, _ in papers))
    rows = []
    for folder, (run, minutes, table) in zip(folders, papers, strict=True):
        for name in ("data", "protocol"):
            if run[name] != papers[0][0][name]:
                raise LusbioError(f"{folder}: {name} {run[name]}, expected {papers[0][0][name]} as in {folders[0]}")
        made = f"{', '.join(run['devices'])} ({', '.join(run['precision'])})"
        rows.append(table.assign(made=made, commit=run["commit"], minutes=sum(minutes[name] for name in shared)))
    cells = pd.concat(rows, ignore_index=True)[COLUMNS]
    difference = cells.apply("{0.difference:+.1f} [{0.ci_low:+.1f}, {0.ci_high:+.1f}]".format, axis=1)
    shown = cells.drop(columns=["task", "ci_low", "ci_high"]).assign(difference=difference)
    return Table(cells, shown.rename(columns={"title": "task", "end_to_end": "end to end"}), note=NOTE)


def main() -> None:
    """Compare, and write ``arithmetic.csv`` and ``.md`` beside the tables of the committed paper."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", type=Path, metavar="FOLDER", help="tables of papers made elsewhere")
    options = parser.parse_args()
    if options.run is None:
        print("0 trainings, it reads the tables of papers that were made elsewhere: run with --run")
        return
    print(open_study("laptop", "synthetic").publish("arithmetic", compare([COMMITTED, *options.run])))


if __name__ == "__main__":
    main()
