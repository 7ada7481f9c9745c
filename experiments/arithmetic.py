"""Does what a paper finds depend on how its machine computes? Papers of the same cohort and seeds, side by side.

The committed paper comes first; each of the others is the folder of tables of one that was made apart from it, e.g.

    LUSBIO_PRECISION=32-true LUSBIO_BUILD=/tmp/build LUSBIO_FIGURES=/tmp/figures make paper
    .venv/bin/python experiments/arithmetic.py --run /tmp/figures/laptop/synthetic
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
    "What differs between the papers is therefore what one more training decides."
)


def read_paper(folder: Path) -> pd.DataFrame:
    """The verdicts of one paper, a row per task, after how and from which commit it was made.

    Args:
        folder: With ``run.json``, ``differences.csv`` and ``verdict.csv`` of a paper.

    Raises:
        LusbioError: If one of them is missing.
    """
    files = [folder / name for name in ("run.json", "differences.csv", "verdict.csv")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise LusbioError(f"{folder}: has no {', '.join(missing)}; `make paper` writes them")
    run = json.loads(files[0].read_text(encoding="utf-8"))
    table = pd.read_csv(files[1]).merge(pd.read_csv(files[2]), on="task", validate="one_to_one")
    how = f"{', '.join(run['devices'])} ({', '.join(run['precision'])})"
    return table.assign(made=how, commit=run["commit"], data=run["data"], protocol=run["protocol"])


def compare(folders: list[Path]) -> Table:
    """The verdicts of several papers of one cohort.

    Raises:
        LusbioError: If they are about other videos or splits.
    """
    papers = [read_paper(folder) for folder in folders]
    for folder, paper in zip(folders, papers, strict=True):
        for name in ("data", "protocol"):
            found, expected = paper[name].iloc[0], papers[0][name].iloc[0]
            if found != expected:
                raise LusbioError(f"{folder}: {name} {found}, expected {expected} as in {folders[0]}")
    columns = [
        "made",
        "commit",
        "task",
        "title",
        "biomarkers",
        "end_to_end",
        "difference",
        "ci_low",
        "ci_high",
        "verdict",
    ]
    cells = pd.concat(papers, ignore_index=True)[columns]
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
