"""Where things are: one place, so that notebooks work from ``make`` and from JupyterLab alike."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: the folder that holds ``notebooks/``, ``lusbio/`` and ``figures/``."""


def _folder(variable: str, default: Path) -> Path:
    """A folder named by an environment variable; a relative one starts at ``ROOT``, not where a notebook runs."""
    return ROOT / os.environ[variable] if os.environ.get(variable) else default


def build_folder(*parts: str) -> Path:
    """The folder of everything that is made and never committed, or a place in it.

    Args:
        *parts: Path components below the build folder, e.g. ``"laptop", "synthetic"``.

    Returns:
        ``$LUSBIO_BUILD`` when that is set, else ``build/`` in the checkout, joined with ``parts``.
    """
    return _folder("LUSBIO_BUILD", ROOT / "build").joinpath(*parts)


def figures_folder(profile: str, cohort: str) -> Path:
    """The folder where the tables and figures of one profile and cohort go.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name (never a path).

    Returns:
        ``figures/<profile>/<cohort>`` in the checkout, or below ``$LUSBIO_FIGURES`` when set.
    """
    return _folder("LUSBIO_FIGURES", ROOT / "figures") / profile / cohort


def data_folder() -> Path:
    """The folder with the public cohorts, one subfolder each.

    Returns:
        ``$LUSBIO_DATA`` when that is set, else ``build/data``. It need not exist.
    """
    return _folder("LUSBIO_DATA", build_folder("data"))
