"""Lung ultrasound videos whose truth is known: labels first, then a scene in millimetres, then pixels.

From the smallest part to the whole: ``constants`` reads every number; ``patients`` are the records, what is in a video
and which of the 38 labels follow. ``population`` says who has what, ``raters`` what people make of it, ``targets``
whether the rates of the literature come out. ``anatomy`` and ``placement`` make a scene of it, ``artifacts`` draws its
parts and their masks, ``scanner`` turns them into a video; ``appearance`` shows each biomarker on its own and measures
how it looks. ``exams`` has the same patients come again.
"""
