import numpy as np
import pytest
import sklearn.metrics

from lusbio.errors import LusbioError
from lusbio.statistics.bootstrap import (
    HeldOut,
    draw_group_counts,
    draw_means,
    draw_runs,
    estimate,
    holm,
    paired_difference,
    subtract_by_run,
)
from lusbio.statistics.metrics import (
    biomarker_metrics,
    calibration,
    detection,
    rater_agreement,
    task_metrics,
    weighted_auc,
)


def made_up_run(
    n_groups: int = 12, n_classes: int = 4, seed: int = 0, skill: float = 1.0, ties: bool = False
) -> HeldOut:
    """Three videos per group, whose labels are mostly the same."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{group:02d}" for group in range(n_groups)], 3)
    usual = rng.integers(n_classes, size=n_groups).repeat(3)
    labels = np.where(rng.random(len(groups)) < 0.7, usual, rng.integers(n_classes, size=len(groups)))
    scores = (
        np.random.default_rng(seed + 1).gamma(1.0, size=(len(groups), n_classes)) + skill * np.eye(n_classes)[labels]
    )
    scores = np.ceil(2 * scores) if ties else scores
    return HeldOut(labels, scores / scores.sum(axis=1, keepdims=True), groups)


def intervals_of(runs, draws: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    return {name: (found.low, found.high) for name, found in estimate(runs, draws, seed=seed).items()}


def resampled(weights: np.ndarray) -> np.ndarray:
    """Row numbers in which every video stands as often as it counts."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def test_draws_keep_groups_whole_and_their_number():
    groups = np.repeat(list("abcdefgh"), [1, 2, 3, 4, 1, 2, 3, 4])
    counts = draw_group_counts(groups, 200, seed=0)
    assert counts.shape == (200, 20)
    for group in set(groups):
        assert (np.ptp(counts[:, groups == group], axis=1) == 0).all()
    first = np.unique(groups, return_index=True)[1]
    assert (counts[:, first].sum(axis=1) == 8).all()
    np.testing.assert_allclose(counts[:, first].mean(axis=0), 1, atol=0.25)


def test_draws_depend_on_the_seed_and_not_on_the_order_of_videos():
    groups = np.array(list("aabbccdd"))
    order = np.random.default_rng(0).permutation(8)
    counts = draw_group_counts(groups, 20, seed=1)
    np.testing.assert_array_equal(draw_group_counts(groups[order], 20, seed=1), counts[:, order])
    assert (draw_group_counts(groups, 20, seed=2) != counts).any()


def test_draws_are_made_within_strata():
    groups, strata = np.array(list("abcdef")), np.array([0, 0, 0, 1, 1, 1])
    counts = draw_group_counts(groups, 50, 0, strata)
    assert (counts[:, :3].sum(axis=1) == 3).all()
    assert (counts[:, 3:].sum(axis=1) == 3).all()


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auc_equals_scikit_learns_with_weights_and_on_resampled_data(ties):
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    scores = rng.random(60) + 0.3 * positive
    scores = np.round(scores, 1) if ties else scores
    weights = rng.integers(0, 4, size=(10, 60)).astype(float)
    ours = weighted_auc(scores, positive, weights)
    for value, weight in zip(ours, weights, strict=True):
        assert value == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores, sample_weight=weight))
        rows = resampled(weight)
        assert value == pytest.approx(sklearn.metrics.roc_auc_score(positive[rows], scores[rows]))
    assert np.isnan(weighted_auc(scores, positive, positive[None].astype(float))).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 4, 7])
def test_weighted_metrics_equal_those_of_the_resampled_videos(n_classes, ties):
    labels, probabilities, groups, _ = made_up_run(8, n_classes, seed=n_classes, ties=ties)
    weights = draw_group_counts(groups, 40, seed=0)
    ours = task_metrics(labels, probabilities, weights)
    absent = 0
    for draw, weight in enumerate(weights):
        rows = resampled(weight)
        expected = task_metrics(labels[rows], probabilities[rows])
        absent += len(set(labels[rows])) < n_classes
        assert {name: values[draw] for name, values in ours.items()} == pytest.approx(expected, nan_ok=True)
    assert absent or n_classes == 2, "the draws should leave classes out, or this shows little"


def test_weighted_biomarker_metrics_equal_those_of_the_resampled_videos():
    rng = np.random.default_rng(0)
    labels = (rng.random((30, 38)) < rng.uniform(0.05, 0.6, 38)).astype(float)
    probabilities = np.clip(0.3 * labels + 0.2 + rng.uniform(-0.3, 0.4, labels.shape), 0, 1)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    labels[:, 7] = np.nan
    labels[3] = np.nan
    weights = draw_group_counts(np.arange(30) // 3, 20, seed=0)
    ours = biomarker_metrics(labels, probabilities, weights)
    for draw, weight in enumerate(weights):
        rows = resampled(weight)
        expected = biomarker_metrics(labels[rows], probabilities[rows])
        assert {name: values[draw] for name, values in ours.items()} == pytest.approx(expected)


def test_weighted_agreement_equals_scikit_learns():
    rng = np.random.default_rng(0)
    first = rng.integers(4, size=50)
    second = np.where(rng.random(50) < 0.5, first, rng.integers(4, size=50))
    weights = draw_group_counts(np.arange(50) // 4, 20, seed=0)
    ours = rater_agreement(first, second, weights)
    kappa = sklearn.metrics.cohen_kappa_score
    for draw, weight in enumerate(weights):
        assert ours["agreement"][draw] == pytest.approx(np.average(first == second, weights=weight))
        near = np.abs(first - second) <= 1
        assert ours["within_one"][draw] == pytest.approx(np.average(near, weights=weight))
        assert ours["kappa"][draw] == pytest.approx(kappa(first, second, sample_weight=weight))
        expected = kappa(first, second, weights="quadratic", sample_weight=weight)
        assert ours["quadratic_kappa"][draw] == pytest.approx(expected)


def test_weighted_calibration_equals_that_of_the_resampled_videos():
    labels, probabilities, groups, _ = made_up_run(8, 3)
    weights = draw_group_counts(groups, 20, seed=0)
    ours = calibration(labels, probabilities, weights)
    for draw, weight in enumerate(weights):
        rows = resampled(weight)
        expected = sklearn.metrics.brier_score_loss(labels[rows], probabilities[rows], labels=[0, 1, 2])
        assert ours["brier"][draw] == pytest.approx(expected)
        confidence, right = probabilities[rows].max(1), probabilities[rows].argmax(1) == labels[rows]
        assert ours["overconfidence"][draw] == pytest.approx(confidence.mean() - right.mean())


def test_weighted_detection_equals_recall_of_either_side():
    rng = np.random.default_rng(0)
    positive, said_yes = rng.random(40) < 0.4, rng.random(40) < 0.5
    weights = draw_group_counts(np.arange(40) // 4, 20, seed=0)
    ours = detection(positive, said_yes, weights)
    for draw, weight in enumerate(weights):
        for name, side in (("sensitivity", True), ("specificity", False)):
            expected = sklearn.metrics.recall_score(
                positive, said_yes, pos_label=side, sample_weight=weight, zero_division=np.nan
            )
            assert ours[name][draw] == pytest.approx(expected, nan_ok=True)
    nobody = detection(np.zeros(3, dtype=bool), np.ones(3, dtype=bool), np.ones((1, 3)))
    assert np.isnan(nobody["sensitivity"]).all() and (nobody["specificity"] == 0).all()


def test_an_estimate_is_the_value_on_all_videos_with_the_interval_of_the_bootstrap():
    runs = [made_up_run(seed=0), made_up_run(seed=2)]
    drawn = draw_means(runs, 100)
    for name, found in estimate(runs, 100).items():
        by_run = [task_metrics(run.labels, run.probabilities)[name] for run in runs]
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn[name], [0.025, 0.975])))
        assert (found.value, found.sd) == pytest.approx((np.mean(by_run), np.std(by_run)))


def test_intervals_hold_the_value_and_shrink_with_patients():
    few, many = made_up_run(12), made_up_run(200)
    narrow, wide = (intervals_of([run], 300) for run in (many, few))
    value = task_metrics(many.labels, many.probabilities)
    for name, (low, high) in narrow.items():
        assert low < value[name] < high
        assert high - low < wide[name][1] - wide[name][0]
    assert intervals_of([few], 300) == wide
    assert intervals_of([few], 300, seed=1) != wide


def test_runs_on_the_same_patients_share_every_draw():
    """Three equal runs say no more than one; three independent ones would seem to."""
    run = made_up_run(20)
    three, one = (intervals_of(runs, 200) for runs in ([run, run, run], [run]))
    for name, interval in one.items():
        assert three[name] == pytest.approx(interval)


def test_runs_on_other_patients_are_drawn_apart():
    """Five folds of 20 patients each are about as sure as 100 patients."""
    run = made_up_run(100)
    folds = [run.keep(np.arange(k, k + 60)) for k in range(0, 300, 60)]
    apart, together = (intervals_of(runs, 400)["accuracy"] for runs in (folds, [run]))
    np.testing.assert_allclose(apart, together, atol=0.03)


def test_a_95_percent_interval_covers_the_truth_about_95_percent_of_the_time():
    """Patients differ: some are easy and some are hard, and all videos of one are alike."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(40), 4), np.tile([0, 0, 1, 1], 40)
    covered = {"patients": 0, "videos": 0}
    for trial in range(200):
        easy = rng.beta(0.7 * 1.5, 0.3 * 1.5, size=40).repeat(4)
        right = rng.random(160) < easy
        probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
        for unit, drawn in (("patients", groups), ("videos", np.arange(160))):
            low, high = intervals_of([HeldOut(labels, probabilities, drawn)], 200, seed=trial)["accuracy"]
            covered[unit] += low <= 0.7 <= high
    assert 0.89 <= covered["patients"] / 200 <= 0.98
    assert covered["videos"] / 200 < 0.85


def test_runs_are_drawn_with_those_that_test_the_same_patients_and_never_alone():
    run = made_up_run(20)
    folds = [run.keep(np.arange(k, k + 20)) for k in (0, 20, 40)]
    _, alone = draw_runs(folds, 50, seed=0)
    assert (alone == 1).all()
    weights, seeds = draw_runs([folds[0], folds[1], folds[0], folds[0]], 200, seed=0)
    assert weights.shape == (200, 80) and (seeds[:, 1] == 1).all() and (seeds.sum(axis=1) == 4).all()
    np.testing.assert_allclose(seeds.mean(axis=0), 1, atol=0.2)
    assert abs(np.corrcoef(seeds[:, 0], weights[:, 0])[0, 1]) < 0.2


def test_what_runs_differ_in_is_in_the_interval_and_a_single_run_has_no_sd():
    runs = [made_up_run(60, skill=skill) for skill in (0.0, 1.0, 4.0)]
    weights = draw_group_counts(runs[0].groups, 400, seed=0)
    drawn = [task_metrics(run.labels, run.probabilities, weights)["auc"] for run in runs]
    over_patients = np.ptp(np.quantile(np.mean(drawn, axis=0), [0.025, 0.975]))
    low, high = intervals_of(runs, 400)["auc"]
    assert high - low > 2 * over_patients
    (single,) = (estimate(runs[:1], 400)["auc"],)
    assert (single.low, single.high) == pytest.approx(tuple(np.quantile(drawn[0], [0.025, 0.975])))
    assert np.isnan(single.sd) and estimate(runs, 2)["auc"].sd > 0


def test_both_methods_are_measured_in_the_same_draw_of_runs():
    runs = [made_up_run(30, skill=skill) for skill in (0.0, 1.0, 4.0)]
    for difference in paired_difference(runs, runs, 100).values():
        assert difference == (0, 0, 0, 0, 1)


def test_differences_are_told_run_by_run():
    first, second = [made_up_run(30, skill=skill) for skill in (0.0, 4.0)], [made_up_run(30, skill=1.0)] * 2
    found = subtract_by_run(first, second)["auc"]
    aucs = [[task_metrics(run.labels, run.probabilities)["auc"] for run in runs] for runs in (first, second)]
    assert found == pytest.approx(np.subtract(*aucs)) and found[0] < 0 < found[1]
    assert paired_difference(first, second, 20)["auc"].value == pytest.approx(found.mean())


def test_intervals_that_draw_runs_too_cover_what_other_patients_and_trainings_would_give():
    """Trainings differ, and patients do: the truth is the mean over both."""
    rng = np.random.default_rng(0)
    labels, groups, covered = np.zeros(120, dtype=int), np.repeat(np.arange(30), 4), {"patients": 0, "both": 0}
    for trial in range(150):
        easy, good = 0.12 * rng.normal(size=30).repeat(4), 0.1 * rng.normal(size=3)
        right = rng.random((3, 120)) < 0.6 + easy + good[:, None]
        runs = [HeldOut(labels, np.eye(2)[1 - one.astype(int)], groups) for one in right]
        weights = draw_group_counts(groups, 200, trial)
        low, high = np.quantile((weights @ right.mean(axis=0)) / weights.sum(axis=1), [0.025, 0.975])
        covered["patients"] += low <= 0.6 <= high
        low, high = intervals_of(runs, 200, seed=trial)["accuracy"]
        covered["both"] += low <= 0.6 <= high
    assert covered["both"] / 150 > covered["patients"] / 150 + 0.1 and covered["both"] / 150 > 0.75


def test_a_method_does_not_differ_from_itself():
    run = made_up_run()
    for value, sd, *rest in paired_difference([run], [run], 100).values():
        assert value == 0 and np.isnan(sd) and rest == [0, 0, 1]


def test_a_better_method_is_found_and_the_sign_follows_the_order():
    good, bad = made_up_run(60, skill=2.0), made_up_run(60, skill=0.2)
    forth, back = (paired_difference(pair[:1], pair[1:], 200) for pair in ([good, bad], [bad, good]))
    for name in forth:
        assert 0 < forth[name].low < forth[name].value < forth[name].high
        assert forth[name].p_value == pytest.approx(2 / 201)
        assert back[name].value == pytest.approx(-forth[name].value)
        assert back[name].low == pytest.approx(-forth[name].high)


def test_equal_methods_are_seldom_called_different():
    p_values = []
    for trial in range(60):
        run = made_up_run(30, seed=2 * trial)
        other = run.probabilities[:, [1, 0, 3, 2]]
        same_skill = np.random.default_rng(trial).random((len(run.labels), 1)) < 0.5
        first = run._replace(probabilities=np.where(same_skill, run.probabilities, other))
        second = run._replace(probabilities=np.where(same_skill, other, run.probabilities))
        result = paired_difference([first], [second], 200, seed=trial)
        p_values.append(result["accuracy"].p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_runs_of_other_videos_cannot_be_paired():
    run = made_up_run()
    with pytest.raises(LusbioError, match="differ in number, labels or groups"):
        paired_difference([run], [run._replace(groups=run.groups[::-1])], 10)
    with pytest.raises(LusbioError, match="differ in number, labels or groups"):
        paired_difference([run], [], 10)
    with pytest.raises(LusbioError, match="36 labels for 3 groups"):
        estimate([run._replace(groups=run.groups[:3])], 10)


def test_classes_that_draws_leave_out_cause_no_warning_and_no_nan():
    labels = np.array([0, 0, 0, 0, 1, 2])
    probabilities = np.eye(3)[[0, 0, 1, 0, 1, 1]]
    intervals = intervals_of([HeldOut(labels, probabilities, np.arange(6))], 200)
    assert np.isfinite(list(intervals.values())).all()
    one_class = intervals_of([HeldOut(np.zeros(6, dtype=int), probabilities, np.arange(6))], 20)
    assert np.isnan(one_class["auc"]).all()
    assert np.isfinite(one_class["f1"]).all()


def test_agreement_has_known_values_and_averages_runs():
    specialist = np.array([0, 1, 2, 3] * 10)
    groups = np.arange(40) // 4

    def agree(*runs: tuple, draws: int = 50):
        return estimate([HeldOut(*run) for run in runs], draws, rater_agreement)

    same = agree((specialist, specialist, groups))
    assert all((found.value, found.low, found.high) == pytest.approx((1, 1, 1)) for found in same.values())
    off_by_one = np.minimum(specialist + 1, 3)
    shifted = agree((specialist, off_by_one, groups))
    assert shifted["agreement"].value == 0.25
    assert shifted["kappa"].value < shifted["quadratic_kappa"].value
    both = agree((specialist, specialist, groups), (specialist, off_by_one, groups))
    assert both["agreement"].value == pytest.approx((1 + 0.25) / 2)
    alone = agree((np.zeros(4, dtype=int), np.zeros(4, dtype=int), np.arange(4)), draws=20)
    assert alone["agreement"][2:4] == (1, 1) and alone["agreement"].value == 1
    assert np.isnan(alone["kappa"]).all()
    with pytest.raises(LusbioError, match="expected class indices"):
        agree((specialist, specialist.astype(float), groups), draws=10)
    with pytest.raises(LusbioError, match="below 0"):
        agree((specialist, specialist - 1, groups), draws=10)


def test_holm_never_lowers_a_p_value_and_keeps_their_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p_values = rng.random(6) ** 3
        adjusted = holm(p_values)
        assert (adjusted >= p_values).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
        assert adjusted.min() == pytest.approx(min(1, 6 * p_values.min()))
    with_nan = holm([0.01, np.nan, 0.04])
    assert with_nan[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(with_nan[1])
    assert holm([]).shape == (0,)
