import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lusbio.statistics.metrics import task_metrics
from lusbio.statistics.within_sources import find_exact_interval, measure_severity


def test_the_exact_interval_is_that_of_the_binomial_test():
    for right in range(10):
        interval = binomtest(right, 9).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(find_exact_interval(right, 9), interval)
    low, high = find_exact_interval(4.5, 9)
    assert find_exact_interval(4, 9)[0] < low < 0.5 < high < find_exact_interval(5, 9)[1]


def test_severity_within_sources_counts_the_pairs_of_one_source():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 30), rng.dirichlet(np.ones(4), 30).round(1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    sources = rng.choice(["a", "b", "c"], 30)
    found = measure_severity(sources)(labels, probabilities)
    score = 1 - probabilities[:, 0]
    pairs = [
        (score[i] > score[j]) + (score[i] == score[j]) / 2
        for i in range(30)
        for j in range(30)
        if sources[i] == sources[j] and labels[i] > 0 == labels[j]
    ]
    assert found["zero_auc_within_sources"] == pytest.approx(np.mean(pairs))
    assert found["zero_auc"] == pytest.approx(roc_auc_score(labels > 0, score))
    expected = task_metrics(labels, probabilities)
    assert all(found[name] == pytest.approx(expected[name]) for name in ("auc", "accuracy"))
    weighted = measure_severity(sources)(labels, probabilities, np.ones((2, 30)))
    assert all((values == values[0]).all() and values[0] == found[name] for name, values in weighted.items())


def test_where_no_source_has_both_there_is_nothing_within_sources():
    labels, probabilities = np.array([0, 0, 1, 2]), np.full((4, 4), 0.25)
    found = measure_severity(np.array(list("aabb")))(labels, probabilities, np.ones((2, 4)))
    assert np.isnan(found["zero_auc_within_sources"]).all() and (found["zero_auc"] == 0.5).all()
