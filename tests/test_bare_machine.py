"""Training on a machine that has torch and little else, as GPU machines often do."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, warnings
ABSENT = "av imageio pooch skops pydicom papermill nbconvert IPython jupyter_client".split()

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nowhere())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in ABSENT else found(name, package)
sys.path.insert(0, {tests!r})
from pathlib import Path
from helpers import TINY
from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study

cohort = simulate_cohort(Path({folder!r}), patients=12, size=32, frames=(4, 6))
study = as_study(prepare_cohort(cohort, TINY))
(run,) = study.train(study.specs("biomarkers")[:1])
print(len(run.predictions), cohort.table["path"][0])
"""


@pytest.mark.slow
def test_the_synthetic_cohort_trains_without_decoders_notebooks_and_validators(tmp_path):
    script = SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path / "cohort"))
    environment = {**os.environ, "LUSBIO_BUILD": str(tmp_path / "build")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    count, first = done.stdout.splitlines()[-1].split()
    assert int(count) > 24 and first.endswith(".npy")
    assert (tmp_path / "cohort" / first).is_file()
