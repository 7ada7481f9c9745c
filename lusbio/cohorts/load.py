"""One door to all cohorts: by name, or by folder."""

from pathlib import Path

from lusbio.cohorts.covid_blues import load_covid_blues
from lusbio.cohorts.folder import load_folder
from lusbio.cohorts.pocovid import load_pocovid
from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.cohorts.table import Cohort
from lusbio.errors import CohortError
from lusbio.files import ROOT, build_folder, data_folder
from lusbio.profiles import Profile

SYNTHETIC = {"synthetic": "linear", "synthetic_convex": "convex"}
"""The cohorts that need no data, and their probe: linear as in the paper, convex as in public data."""

LOADERS = {"covid_blues": load_covid_blues, "pocovid": load_pocovid}
"""Loaders of the public cohorts, which lie in ``data_folder()`` under their names."""


def load_cohort(name_or_folder: str, profile: Profile, jobs: int = 1) -> Cohort:
    """A cohort by name or folder.

    Args:
        name_or_folder: A key of ``SYNTHETIC`` (simulated when it is not there yet), ``"covid_blues"`` or
            ``"pocovid"`` (from ``data_folder()``), or a folder with a ``cohort.csv``.
        profile: Decides the size of the synthetic cohort.
        jobs: Videos that are simulated at a time.

    Raises:
        CohortError: If it is not there, or not usable; says what is wrong and how to get it.
    """
    if name_or_folder in SYNTHETIC:
        folder, probe = build_folder("cohorts", name_or_folder, profile.name), SYNTHETIC[name_or_folder]
        asked = {"patients": profile.patients, "size": profile.video_size, "frames": profile.video_frames}
        return simulate_cohort(folder, probe=probe, jobs=jobs, **asked)
    if name_or_folder in LOADERS:
        return LOADERS[name_or_folder](data_folder() / name_or_folder)
    folder = ROOT / Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise CohortError(name_or_folder, [f"neither one of {', '.join([*SYNTHETIC, *LOADERS])}, nor a folder"])
    return load_folder(folder)
