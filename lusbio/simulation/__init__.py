"""Lung ultrasound videos whose truth is known: labels first, then a scene in millimetres, then pixels.

From the smallest part to the whole: ``constants`` holds every number; ``findings`` says what is in a video and
which of the 38 labels follow; ``patients`` are the records. ``draws`` and ``labels`` say who has what, ``raters``
what people make of it, ``targets`` whether the rates of the literature come out. ``anatomy`` and ``placement``
make a scene of it, ``tissue`` and ``artifacts`` draw its parts, ``scanner`` turns them into a video and ``masks``
into masks; ``examples`` shows each biomarker on its own.
"""
