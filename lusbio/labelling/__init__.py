"""People label videos, blinded: the sheet and its rules, the log of ratings, the annotator in Jupyter and as a page."""
