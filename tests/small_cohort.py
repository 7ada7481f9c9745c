from helpers import SMALL, TINY, make_small_cohort

__all__ = ["SMALL", "TINY", "make_small_cohort"]
