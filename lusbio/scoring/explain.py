"""Why: where in a video the network saw a finding, and which findings a decision rests on."""

import numpy as np
import pandas as pd

from lusbio.experts.classifiers import Expert
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKERS

ABSENT = ("none", "N/A")
"""Options that say that something is not there: nothing in an image to point at."""

FEWEST_CELLS = 7
"""Cells along a side that a heat map needs to say where: what the last stage has for frames of 224 pixels."""


def compute_heat(
    network, clip: np.ndarray, output: int, *, against: bool = False, stage: int | None = None
) -> np.ndarray:
    """Where in a clip the network saw what made one of its outputs large: Grad-CAM.

    The maps of a stage are weighted by how much the logit would gain from more of each (its gradient,
    averaged over the frame), added up, and kept where they speak for the output. Weights are a frame's
    own: where the network takes the maximum over time, a frame that decided nothing stays cold. The last
    stage has one cell per 32 pixels, and small frames would be left with 2 x 2, so by default the last
    stage with at least ``FEWEST_CELLS`` cells along a side is asked. Heat shows what mattered to the network,
    which need not be what matters to a physician.

    Args:
        network: A ``TSMResNet18``; put in evaluation mode.
        clip: uint8 (T, H, W), the T that the network was made for.
        output: Which of its outputs, e.g. the ``index`` of a biomarker.
        against: Ask for what made it small instead.
        stage: 1 to 4; None chooses by the size of the frames.

    Returns:
        float32 (T, H, W) in [0, 1], 1 where the clip is hottest; all 0 where nothing spoke for the output.

    Source:
        Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", Equations 1 and 2; that it is done frame by frame, and the stage: engineering choice.
    """
    import torch

    from lusbio.network.training import one_thread, to_unit_range

    size = clip.shape[1:]
    layer = getattr(network, f"layer{stage or _choose_stage(min(size))}")
    seen = []
    hook = layer.register_forward_hook(lambda module, inputs, maps: seen.append(maps))
    with hook, one_thread(), torch.enable_grad():
        logit = network.eval()(to_unit_range(torch.from_numpy(clip)[None, :, None]))[0, output]
        (gradient,) = torch.autograd.grad(-logit if against else logit, seen[0])  # (T, C, h, w)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * seen[0]).sum(dim=1, keepdim=True).relu().detach()  # (T, 1, h, w)
    heat = torch.nn.functional.interpolate(heat, size, mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).numpy()


def _choose_stage(side: int) -> int:
    """The last stage with enough cells along a side of so many pixels; the first has one cell per 4 pixels."""
    return max((stage for stage in (2, 3, 4) if -(-side // 2 ** (stage + 1)) >= FEWEST_CELLS), default=1)


def choose_frames(heat: np.ndarray, n: int) -> np.ndarray:
    """The hottest frames of a clip.

    Args:
        heat: (T, H, W), from ``compute_heat``.
        n: How many.

    Returns:
        At most ``n`` positions, int64, in order of time.
    """
    return np.sort(np.argsort(-heat.max(axis=(1, 2)), kind="stable")[:n])


def pick_winners(probabilities: np.ndarray) -> pd.DataFrame:
    """The option that a network believes most in each group of biomarkers.

    The two flags beside weak and bold A-lines do not compete, and biomarkers that were never learnt (NaN)
    cannot.

    Args:
        probabilities: (38,), of one video.

    Returns:
        One row per group: ``group``, ``output`` (position among the 38), ``name, option, probability, margin`` (to
        the next option of the group).
    """
    table = pd.DataFrame(BIOMARKERS)[["group", "index", "name", "option"]].rename(columns={"index": "output"})
    table = table.assign(probability=probabilities)[~table["name"].isin(BIOMARKER_FLAGS)].dropna(subset="probability")
    ranked = table.sort_values("probability", ascending=False, kind="stable").groupby("group")
    winners, second = ranked.head(1).sort_values("output"), ranked.nth(1).set_index("group")["probability"]
    margin = winners["probability"] - winners["group"].map(second).fillna(0.0)
    return winners.assign(margin=margin).reset_index(drop=True)


def pick_visible(winners: pd.DataFrame, n: int) -> pd.DataFrame:
    """The surest findings that can be pointed at.

    An absence cannot, unless the network doubts it: an improbable ``"none"`` is something that is there,
    as where a cohort only says whether there are B-lines and not how many.

    Args:
        winners: From ``pick_winners``; at least one row.
        n: How many at most.

    Returns:
        Rows of ``winners``, the most probable first; ``against`` is True for a doubted ``"none"``, which becomes
        ``"not none"`` with the opposite probability. Where everything is absent, the surest absence.
    """
    doubted = (winners["option"] == "none") & (winners["probability"] < 0.5)
    found = winners.assign(
        against=doubted,
        option=winners["option"].mask(doubted, "not none"),
        probability=winners["probability"].mask(doubted, 1 - winners["probability"]),
    )
    visible = found[~found["option"].isin(ABSENT)]
    return visible.nlargest(n, "probability") if len(visible) else found.nlargest(1, "probability")


def describe_tree_path(expert: Expert, biomarkers: np.ndarray) -> list[str]:
    """The questions that a decision tree asked about one video, in words.

    Args:
        expert: A tree (``"DT"``) fitted on the 38 biomarkers.
        biomarkers: (38,), finite: what it decides from.

    Returns:
        One line per biomarker it asked about, in the order of the first question about each; several
        questions about one become one interval.

    Raises:
        ValueError: If the expert is no tree over 38 biomarkers.
    """
    if not hasattr(expert.model, "decision_path") or not hasattr(expert.model, "tree_"):
        raise ValueError(f"expert {expert.name!r} is not a decision tree, it has no path")
    if expert.model.n_features_in_ != len(BIOMARKERS):
        raise ValueError(f"the tree decides from {expert.model.n_features_in_} numbers, not from 38 biomarkers")
    tree, given = expert.model.tree_, np.asarray(biomarkers, dtype=np.float32)  # as scikit-learn compares
    limits: dict[int, list[float]] = {}
    for node in expert.model.decision_path(given[None].astype(np.float64)).indices[:-1]:
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        low, high = limits.setdefault(feature, [-np.inf, np.inf])
        above = float(given[feature]) > threshold
        limits[feature] = [max(low, threshold), high] if above else [low, min(high, threshold)]
    return [_describe_limits(feature, float(given[feature]), *limits[feature]) for feature in limits]


def _describe_limits(feature: int, value: float, low: float, high: float) -> str:
    """E.g. ``"B-lines, few (1-3): 0.712, above 0.500"``."""
    if np.isinf(low):
        words = f"at most {high:.3f}"
    elif np.isinf(high):
        words = f"above {low:.3f}"
    else:
        words = f"between {low:.3f} and {high:.3f}"
    return f"{BIOMARKERS[feature].group}, {BIOMARKERS[feature].option}: {value:.3f}, {words}"
