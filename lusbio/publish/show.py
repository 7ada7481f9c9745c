"""The source of a function, for notebooks to show."""

import inspect
from collections.abc import Callable


def show(function: Callable):
    """A whole function or class, signature and docstring included, as Jupyter shows code."""
    from IPython.display import Markdown

    return Markdown(f"```python\n{inspect.getsource(function)}```")
