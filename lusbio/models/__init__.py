"""Networks, each in one file that reads from the smallest part to the whole. They know pixels, not ultrasound."""
