"""Networks, each in one file that reads from the smallest part to the whole. They know pixels, not ultrasound."""

USUAL_BACKBONE, OTHER_BACKBONE = "tsm_resnet18", "i3d_resnet50"
"""The networks of all tables but Table 6, and of Table 6."""

UNET = "unet"
"""The network that labels pixels; like those of the other companions it is no network of the paper's tables."""

VIT = "vit"
"""The transformers of ``vit.SIZES``, that of the companion about pretraining without labels."""
