"""How big: ``smoke`` for tests, ``laptop`` for two cores, ``paper`` for the published settings."""

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the numbers of a training, apart from its data; part of every run's name.

    Attributes:
        frames: Frames of a clip, T.
        image_size: Height and width of a frame in pixels.
        epochs: Epochs of a training.
        batch_size: Clips of a training batch.
        learning_rate: Adam's (peak) learning rate.
        schedule: ``"plateau"`` (halved when validation accuracy stalls) or ``"one_cycle"``.
        validation_clips: Clips per video when an epoch is validated.
        evaluation_clips: Clips per video in the predictions that are kept.
        clips_per_epoch: Clips of an epoch; None means every video of the oversampled training set once.
        width: Channels of the first stage of ``TSMResNet18``; 64 is the published network.
        pool: Over time, of ``TSMResNet18``: ``"max"``, the authors' practice, or ``"mean"``.
    """

    frames: int
    image_size: int
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    validation_clips: int
    evaluation_clips: int
    clips_per_epoch: int | None = None
    width: int = 64
    pool: str = "max"


@dataclass(frozen=True)
class Profile:
    """The sizes of one way to run everything.

    Attributes:
        name: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        training: Of every network.
        initial_weights: ``"imagenet"`` (where the file can be had, else from scratch) or
            ``"scratch"``.
        patients: Patients of the synthetic cohort.
        fresh_patients: Of another one, of whom nothing is learnt: simulated verdicts are about them.
        seeds: Trainings of every network in every fold.
        fits: Fits of an expert, of which the best in validation is kept.
        video_size: Height and width of its videos in pixels.
        video_frames: Fewest and most frames of its videos.
        bootstrap_draws: Draws of patients and runs behind every interval.
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
    fresh_patients: int
    seeds: int
    fits: int
    video_size: int
    video_frames: tuple[int, int]
    bootstrap_draws: int
    label_fractions: tuple[float, ...]
    label_folds: int
    backbone_training: TrainingSettings
    backbone_tasks: tuple[str, ...]
    backbone_folds: int
    label_cohorts: int


def _make_profile(name: str, *, training: dict, backbone_training: dict, **sizes) -> Profile:
    settings = TrainingSettings(**training)
    sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
    return Profile(name, settings, backbone_training=replace(settings, **backbone_training), **sizes)


with (Path(__file__).parent / "words" / "profiles.toml").open("rb") as _file:
    PROFILES: dict[str, Profile] = {
        name: _make_profile(name, **content) for name, content in tomllib.load(_file).items()
    }
"""All profiles by name; they stand in ``words/profiles.toml``."""


def find_profile(name: str) -> Profile:
    """The profile of a name; a ``ValueError`` names the possible ones.

    ``$LUSBIO_WIDTH``, a multiple of 8, overrides the width of the network.

    Example:
        >>> find_profile("paper").training.image_size
        224
    """
    if name not in PROFILES:
        raise ValueError(f"profile {name!r} is not one of {', '.join(PROFILES)}")
    profile, width = PROFILES[name], os.environ.get("LUSBIO_WIDTH", "")
    if not width:
        return profile
    if not width.isdigit() or int(width) % 8 or not int(width):
        raise ValueError(f"LUSBIO_WIDTH is {width!r}, expected a multiple of 8")
    return replace(profile, training=replace(profile.training, width=int(width)))
