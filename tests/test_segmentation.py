"""Counting pixels, against another implementation and against loops."""

import numpy as np
import pytest
import torch

from lusbio.statistics.bootstrap import HeldOut, estimate
from lusbio.statistics.segmentation import count_pixels, segmentation_metrics


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    true, claimed = rng.integers(0, 3, (5, 4, 8, 8)), rng.integers(0, 3, (5, 4, 8, 8))
    true[0] = true[1, 2] = 0
    return true, claimed


def test_counts_are_those_of_loops(maps):
    true, claimed = (one == 1 for one in maps)
    least = np.array([20.0, 10, 40, 1, 1])
    expected = np.zeros((5, 6))
    for v in range(5):
        for n in range(4):
            t, c = true[v, n], claimed[v, n]
            without = not t.any()
            expected[v] += [(t & c).sum(), (~t & c).sum(), (t & ~c).sum(), 1, without, without and c.sum() >= least[v]]
    np.testing.assert_array_equal(count_pixels(true, claimed, least), expected)


def test_dice_and_iou_are_those_of_torchmetrics(maps):
    functional = pytest.importorskip("torchmetrics.functional.segmentation")
    true, claimed = (torch.from_numpy(one).flatten(0, 2)[None] for one in maps)  # all frames as one image
    asked = {"num_classes": 3, "input_format": "index", "per_class": True}
    iou = functional.mean_iou(claimed, true, **asked)[0]
    dice = functional.dice_score(claimed, true, num_classes=3, input_format="index", average=None)[0]
    for k in range(3):
        counts = count_pixels(maps[0] == k, maps[1] == k, np.ones(5))[:, None]
        found = segmentation_metrics(np.zeros(5, int), counts)
        assert found["iou"] == pytest.approx(float(iou[k]), abs=1e-6)
        assert found["dice"] == pytest.approx(float(dice[k]), abs=1e-6)


def test_several_classes_are_averaged_where_they_are_defined():
    counts = np.zeros((2, 2, 6))
    counts[:, 0] = [8, 2, 2, 4, 2, 1]
    counts[:, 1] = [0, 0, 0, 4, 4, 0]  # a class that is nowhere and never claimed
    found = segmentation_metrics(np.zeros(2, int), counts)
    assert found["dice"] == pytest.approx(0.8) and found["precision"] == pytest.approx(0.8)
    assert found["false_alarms"] == pytest.approx((0.5 + 0) / 2)
    assert found["false_positives"] == pytest.approx((0.5 + 0) / 2 / 100)


def test_intervals_are_over_patients():
    counts = np.tile([[5.0, 1, 1, 4, 4, 0]], (20, 1))[:, None]
    counts[:2, 0, 5] = 4
    held_out = HeldOut(np.zeros(20, int), counts, np.repeat(np.arange(10), 2).astype(str), np.arange(20))
    found = estimate([held_out], 200, segmentation_metrics)["false_alarms"]
    assert found.value == pytest.approx(0.1) and found.low == 0 and found.high >= 0.2
