"""Signs measured in a video by classical image analysis: nothing is learnt, and a person can check every number.

``lines`` finds the pleural line, what repeats it and what runs down from it; ``measure`` turns that into numbers.
Source: engineering choices throughout; what there is to look for follows Soldati et al. 2020.
"""
