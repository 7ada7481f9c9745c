"""How big: ``smoke`` for tests, ``laptop`` for two cores, ``paper`` for the published settings."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the numbers of a training, apart from its data; part of every run's name.

    Attributes:
        frames: Frames of a clip, T.
        image_size: Height and width of a frame in pixels.
        epochs: Epochs of a training.
        clips_per_epoch: Clips of an epoch; None means every video of the oversampled training set
            once.
        batch_size: Clips of a training batch.
        learning_rate: Adam's (peak) learning rate.
        schedule: ``"plateau"`` (halved when validation accuracy stalls) or ``"one_cycle"``.
        validation_clips: Clips per video when an epoch is validated.
        evaluation_clips: Clips per video in the predictions that are kept.
    """

    frames: int
    image_size: int
    epochs: int
    clips_per_epoch: int | None
    batch_size: int
    learning_rate: float
    schedule: str
    validation_clips: int
    evaluation_clips: int


@dataclass(frozen=True)
class Profile:
    """The sizes of one way to run everything.

    Attributes:
        name: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        training: Of every network.
        initial_weights: ``"imagenet"`` (where the file can be had, else from scratch) or
            ``"scratch"``.
        patients: Patients of the synthetic cohort.
        video_size: Height and width of its videos in pixels.
        video_frames: Fewest and most frames of its videos.
        bootstrap_draws: Draws of patients behind every interval.
        label_fractions: Shares of the task labels, below 1, with which label efficiency is measured.
        label_folds: In how many of the run folds.
        backbone_training: Of the other backbone (Table 6).
        backbone_tasks: What it is trained for: ``"biomarkers"`` and names of tasks.
        backbone_folds: In how many of the run folds.
        label_cohorts: Cohorts of labels behind the simulator's table of targets.
    """

    name: str
    training: TrainingSettings
    initial_weights: str
    patients: int
    video_size: int
    video_frames: tuple[int, int]
    bootstrap_draws: int
    label_fractions: tuple[float, ...]
    label_folds: int
    backbone_training: TrainingSettings
    backbone_tasks: tuple[str, ...]
    backbone_folds: int
    label_cohorts: int


_SMOKE = TrainingSettings(4, 32, 1, 24, 8, 1e-3, "one_cycle", 1, 1)
_LAPTOP = TrainingSettings(8, 64, 12, 320, 8, 1e-3, "one_cycle", 1, 2)
_PAPER = TrainingSettings(15, 224, 100, None, 4, 1e-4, "plateau", 4, 4)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            _SMOKE,
            "scratch",
            patients=24,
            video_size=64,
            video_frames=(12, 16),
            bootstrap_draws=50,
            label_fractions=(0.5,),
            label_folds=1,
            backbone_training=replace(_SMOKE, clips_per_epoch=8),
            backbone_tasks=("biomarkers", "lung_severity"),
            backbone_folds=1,
            label_cohorts=2,
        ),
        Profile(
            "laptop",
            _LAPTOP,
            "imagenet",
            patients=189,
            video_size=96,
            video_frames=(24, 40),
            bootstrap_draws=1000,
            label_fractions=(0.125, 0.25, 0.5),
            label_folds=1,
            backbone_training=replace(_LAPTOP, epochs=4),
            backbone_tasks=("biomarkers", "lung_severity"),
            backbone_folds=1,
            label_cohorts=20,
        ),
        Profile(
            "paper",
            _PAPER,
            "imagenet",
            patients=189,
            video_size=224,
            video_frames=(60, 150),
            bootstrap_draws=1000,
            label_fractions=(0.125, 0.25, 0.5),
            label_folds=5,
            backbone_training=_PAPER,
            backbone_tasks=("biomarkers", "lung_severity", "sf_ratio", "disease"),
            backbone_folds=5,
            label_cohorts=20,
        ),
    )
}
"""All profiles by name. Source of ``paper``: Gare et al. 2022, Section 3; the others are
engineering choices sized for two cores."""


def find_profile(name: str) -> Profile:
    """The profile of a name.

    Args:
        name: A key of ``PROFILES``.

    Returns:
        The profile.

    Raises:
        ValueError: If there is no such profile; names the value and the possible ones.

    Example:
        >>> find_profile("paper").training.image_size
        224
    """
    if name not in PROFILES:
        raise ValueError(f"profile {name!r} is not one of {', '.join(PROFILES)}")
    return PROFILES[name]
