"""Where videos and labels come from; each source yields the same ``Cohort``."""
