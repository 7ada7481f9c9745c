"""lusbio: lung ultrasound biomarkers, and the experts that turn them into decisions.

For somebody who has an hour, from the smallest part to the whole:

1. The words: ``vocabulary``; a cohort, ``cohorts/table``; who is held out, ``cohorts/splits``; what is learnt from
   whom, ``cohorts/targets``.
2. From a clip to 38 numbers: ``network/clips``, ``network/resnet``, ``network/tsm``, ``network/training``.
3. One training, one folder: ``runs/spec``.
4. From numbers to decisions: ``experts/classifiers``, ``experts/inputs``, ``experts/rows``.
5. How sure that is, and how it is shown: ``statistics/bootstrap``, ``report/tables``.

Notebooks come in by one door, ``runs/study``. Who has a video and an hour less: ``lusbio.load_model()``.
"""

HOUR = (
    *("vocabulary", "cohorts/table", "cohorts/splits", "cohorts/targets"),
    *("network/clips", "network/resnet", "network/tsm", "network/training", "runs/spec"),
    *("experts/classifiers", "experts/inputs", "experts/rows", "statistics/bootstrap", "report/tables"),
)
"""The modules of that hour, in order."""

__version__ = "0.1.0"


def load_model(folder=None):
    """A model that scores videos: ``lusbio.load_model().score("video.mp4")``; see ``scoring.score.find_model``."""
    from pathlib import Path

    from lusbio.scoring.score import find_model

    return find_model(folder and Path(folder))
