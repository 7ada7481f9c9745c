"""A dask cluster to train on: worker processes on any machines that share the checkout and the build folder.

Plain dask. joblib's dask backend computes in its own process when the cluster has one worker, and waits
forever for a call that has taken its workers down with it (joblib 1.6, tried).
"""

import contextlib
from collections.abc import Iterator

from lusbio.errors import LusbioError
from lusbio.runs.spec import Say


@contextlib.contextmanager
def connect_cluster(address: str, say: Say) -> Iterator:
    """A connection to a scheduler with at least one worker, open while the block lasts.

    Workers may come and go: what a lost worker was at is given to another one.

    Args:
        address: Of the scheduler, e.g. ``"tcp://127.0.0.1:8786"``.
        say: Takes lines of progress.

    Yields:
        The ``distributed.Client``.

    Raises:
        LusbioError: If dask is not installed, nothing answers at the address, the scheduler goes away, or one
            call has taken several workers down with it.

    Source:
        Engineering choice.
    """
    try:
        from distributed import CancelledError, Client, KilledWorker
    except ImportError as error:
        install = "python -m pip install -c constraints.txt -e '.[cluster]'"
        raise LusbioError(f"LUSBIO_SCHEDULER is {address}, but dask is not installed: {install}") from error
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise LusbioError(f"LUSBIO_SCHEDULER is {address}, but no scheduler answers there: {error}") from error
    with client:
        if not client.nthreads():
            say(f"no worker at {address} yet; waiting for the first one")
            client.wait_for_workers(1)
        say(f"training on the workers of {address}, {len(client.nthreads())} now")
        try:
            yield client
        except KilledWorker as error:
            raise LusbioError(f"a run was given up, its workers died (short of memory?): {error}") from error
        except CancelledError as error:
            raise LusbioError(f"the scheduler at {address} is gone; runs go on where they were") from error


def check_worker() -> None:
    """Raise unless the worker that calls this does one thing at a time.

    Trainings seed torch's generator before every batch; a second one in the same process would seed it too.

    Raises:
        LusbioError: If the worker has several threads.
    """
    from distributed import get_worker

    worker = get_worker()
    if (threads := worker.state.nthreads) != 1:
        raise LusbioError(f"worker {worker.address} has {threads} threads, expected 1: start it with --nthreads 1")
