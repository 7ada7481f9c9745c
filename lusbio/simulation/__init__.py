"""Lung ultrasound videos whose truth is known: labels first, then a scene in millimetres, then pixels.

``findings`` (what is in a video, and the 38 labels that follow) and ``patients`` (the records) are the smallest
parts; ``labels`` and ``draws`` say who has what, ``raters`` what people make of it, ``targets`` whether the rates of
the literature come out; ``anatomy``, ``artifacts`` and ``scanner`` draw it.
"""
