"""The source of a function, for notebooks to show."""

import inspect
from collections.abc import Callable


def show(function: Callable):
    """A whole function or class, signature and docstring included, as coloured code."""
    from IPython.display import HTML, Code

    code = Code(inspect.getsource(function), language="python")._repr_html_()
    return HTML(f'<div style="font-family: monospace">{code}</div>')  # pages of notebooks give `pre` the font around it
