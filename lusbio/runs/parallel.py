"""The same work for several things at a time."""

import warnings
from collections.abc import Callable, Iterable


def side_by_side(function: Callable, arguments: Iterable[tuple], jobs: int) -> list:
    """``function(*one)`` for each of the arguments, ``jobs`` processes of one thread at a time; results in order."""
    import joblib

    parallel = joblib.Parallel(n_jobs=jobs, backend="loky", inner_max_num_threads=1)
    with warnings.catch_warnings():
        # joblib replaces workers whose memory has grown, which is what a training does to them.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        return parallel(joblib.delayed(function)(*one) for one in arguments)
