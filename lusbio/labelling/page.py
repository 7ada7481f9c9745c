"""The annotator as a page of this machine, for people without Jupyter: ``lusbio label``."""

import json
import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from lusbio.errors import LusbioError

if TYPE_CHECKING:
    from lusbio.labelling.annotator import Annotator

VARIABLE = "LUSBIO_LABEL"
"""Tells the page's kernel what to open; the notebook below names nothing."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://127.0.0.1:{port}"
)
"""Nothing is loaded from and nothing goes to another machine, whatever a template asks for."""

CELL = "from lusbio.labelling.page import open_annotator\nopen_annotator()"

NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "label", "metadata": {}, "source": CELL, "outputs": [], "execution_count": None}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def open_annotator() -> "Annotator | None":
    """What the page's kernel does; the page shows no traceback, and one could name what is to be hidden."""
    from lusbio.labelling.annotator import Annotator

    try:
        return Annotator(**json.loads(os.environ[VARIABLE]))
    except Exception as error:
        advice = "end `lusbio label` where it runs and begin it again: it says what is wrong"
        print(f"The annotator cannot be opened ({type(error).__name__}); {advice}.")
        return None


def serve_annotator(settings: dict, port: int = 0, *, browser: bool = True) -> None:
    """Serve the page until it is interrupted; its address, with the token that opens it, is printed.

    Args:
        settings: Arguments of ``Annotator``, as plain values.
        port: On 127.0.0.1; 0 for one that is free.
        browser: Open the page there.

    Raises:
        LusbioError: If the port is taken, or what serves the page is not installed.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise LusbioError("the page needs voila: pip install -c constraints.txt -e '.[label]'") from error
    port, token = _find_port(port), secrets.token_urlsafe(16)
    os.environ[VARIABLE] = json.dumps(settings)
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder) / "label.ipynb"
        notebook.write_text(json.dumps(NOTEBOOK), encoding="utf-8")
        address = f"http://127.0.0.1:{port}/?token={token}"
        print(f"{address}\nEnd it with Ctrl-C; what is said to be saved is saved.", flush=True)
        arguments = [str(notebook), f"--port={port}", "--Voila.ip=127.0.0.1", f"--token={token}", "--no-browser"]
        policy = {"headers": {"Content-Security-Policy": POLICY.format(port=port)}}
        if browser:
            threading.Timer(1, webbrowser.open, [address]).start()
        Voila.launch_instance(arguments, tornado_settings=policy, log_level="WARN")


def _find_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LusbioError(f"port {port} cannot be used ({error.strerror}); name another one with --port") from error
        return probe.getsockname()[1]
