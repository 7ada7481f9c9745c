"""lusbio: lung ultrasound biomarkers, and the experts that turn them into decisions.

The package reads from the smallest part to the whole: ``vocabulary`` and ``profiles`` say what
there is; ``cohorts`` and ``videos`` bring it in; ``clips``, ``models`` and ``training`` learn
from it; ``runs`` keeps what was learnt; ``experts``, ``metrics`` and ``statistics`` judge it;
``tables`` and ``figures`` show it.
"""

__version__ = "0.1.0"
