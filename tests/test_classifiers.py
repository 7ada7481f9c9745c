import warnings
import zipfile

import numpy as np
import pytest
import sklearn
import skops.io

from lusbio.errors import LusbioError
from lusbio.experts import classifiers
from lusbio.experts.classifiers import (
    EXPERT_NAMES,
    _calibration_splits,
    fit_expert,
    load_expert,
    make_expert,
    save_expert,
)
from lusbio.statistics.metrics import task_metrics

N_CLASSES = 4


def made_up_videos(n_videos: int, seed: int):
    """38 noisy findings, of which each class raises its own six; three videos per group."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_videos) % N_CLASSES)
    features = rng.random((n_videos, 38))
    features[:, 10:34] += 0.4 * np.eye(N_CLASSES)[labels].repeat(6, axis=1)
    return features, labels, np.arange(n_videos) // 3


def fit(name: str, seed: int = 0, fits: int = 1, n_videos: int = 240, n_classes: int = N_CLASSES):
    train, val = made_up_videos(n_videos, 1), made_up_videos(120, 2)
    return fit_expert(name, *train, *val[:2], n_classes=n_classes, seed=seed, fits=fits)


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_every_expert_finds_a_planted_rule(name):
    features, labels, _ = made_up_videos(300, 3)
    probabilities = fit(name).predict_probabilities(features)
    assert probabilities.dtype == np.float64
    metrics = task_metrics(labels, probabilities)
    assert metrics["accuracy"] > 0.65
    assert metrics["auc"] > 0.8


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_shuffled_labels_give_chance_on_test_although_the_best_fit_is_chosen(name):
    rng = np.random.default_rng(0)
    (features, labels, groups), (val, val_labels, _) = made_up_videos(120, 1), made_up_videos(60, 2)
    test, test_labels, _ = made_up_videos(600, 3)
    aucs, accuracies = [], []
    for _ in range(4):
        shuffled, val_shuffled = rng.permutation(labels), rng.permutation(val_labels)
        expert = fit_expert(name, features, shuffled, groups, val, val_shuffled, n_classes=4, fits=2)
        metrics = task_metrics(test_labels, expert.predict_probabilities(test))
        aucs.append(metrics["auc"])
        accuracies.append(metrics["accuracy"])
    assert 0.42 < np.mean(aucs) < 0.58
    assert 0.17 < np.mean(accuracies) < 0.33


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_a_saved_expert_predicts_the_same_after_loading(name, tmp_path):
    features = made_up_videos(50, 3)[0]
    expert = fit(name)
    save_expert(expert, tmp_path / "new" / "expert.skops")
    loaded = load_expert(tmp_path / "new" / "expert.skops")
    assert (loaded.name, loaded.n_classes, loaded.validated, loaded.fit) == (
        expert.name,
        expert.n_classes,
        expert.validated,
        expert.fit,
    )
    np.testing.assert_array_equal(loaded.predict_probabilities(features), expert.predict_probabilities(features))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["expert.skops"]


def test_an_expert_that_was_kept_for_its_accuracy_still_loads(tmp_path):
    content = vars(fit("DT")) | {"scikit_learn": sklearn.__version__}
    content["validation_accuracy"] = content.pop("validated") / 2
    skops.io.dump(content, tmp_path / "expert.skops")
    loaded = load_expert(tmp_path / "expert.skops")
    assert loaded.validated == content["validation_accuracy"] and loaded.name == "DT"


def test_nearest_neighbours_of_few_features_can_be_saved(tmp_path):
    features, labels, groups = made_up_videos(90, 1)
    columns = features[:, [4, 20]]
    expert = fit_expert("NN", columns, labels, groups, columns, labels, n_classes=4)
    save_expert(expert, tmp_path / "expert.skops")
    loaded = load_expert(tmp_path / "expert.skops")
    np.testing.assert_array_equal(loaded.predict_probabilities(columns), expert.predict_probabilities(columns))


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_a_class_absent_in_training_has_probability_zero_in_its_own_column(name):
    features, labels, groups = made_up_videos(120, 1)
    classes = np.array([0, 2, 3, 5])[labels]  # 1 and 4 are absent
    expert = fit_expert(name, features, classes, groups, features, classes, n_classes=6, fits=1)
    probabilities = expert.predict_probabilities(features)
    assert probabilities.shape == (120, 6)
    assert (probabilities[:, [1, 4]] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.mean(probabilities.argmax(axis=1) == classes) > 0.8


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_the_seed_decides_and_warnings_stay_inside(name):
    features = made_up_videos(50, 3)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once, again = (fit(name, seed=5, n_videos=90).predict_probabilities(features) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_the_best_fit_on_validation_is_kept_and_the_first_of_equals():
    train, val = made_up_videos(60, 1), made_up_videos(60, 2)
    experts = [fit_expert("DT", *train, *val[:2], n_classes=4, fits=fits) for fits in (1, 2, 3, 6)]
    aucs = [expert.validated for expert in experts]
    assert aucs == sorted(aucs) and aucs[-1] > aucs[0]
    found = task_metrics(val[1], experts[-1].predict_probabilities(val[0]))
    assert experts[-1].validated == found["auc"] != found["accuracy"]
    easy = np.eye(4)[train[1]]
    expert = fit_expert("DT", easy, train[1], train[2], easy, train[1], n_classes=4, fits=3)
    assert (expert.fit, expert.validated) == (0, 1.0)


def test_a_fit_is_kept_for_its_ranks_and_where_there_is_one_class_for_being_right(monkeypatch):
    class Says:
        """Says the same numbers whatever it learnt."""

        def __init__(self, yes: list[float]):
            self.probabilities = np.array([[1 - p, p] for p in yes])

        def fit(self, features, _):
            self.classes_, self.n_features_in_ = np.arange(2), features.shape[1]

        def predict_proba(self, _):
            return self.probabilities

    def keep(*labels: int):
        fits = iter([Says([0.1, 0.1, 0.9, 0.05]), Says([0.1, 0.2, 0.3, 0.4])])
        monkeypatch.setattr(classifiers, "make_expert", lambda *_: next(fits))
        x, known = np.zeros((4, 1)), np.array([0, 0, 1, 1])
        expert = fit_expert("DT", x, known, np.arange(4), x, np.array(labels), n_classes=2, fits=2)
        return expert.fit, expert.validated

    assert keep(0, 0, 1, 1) == (1, 1.0)  # right in 2 of 4, as against 3 of 4
    assert keep(1, 1, 1, 1) == (0, 0.25)


def test_validation_videos_choose_but_do_not_teach():
    (features, labels, groups), (val, val_labels, _) = made_up_videos(90, 1), made_up_videos(60, 2)
    one = fit_expert("RF", features, labels, groups, val, val_labels, n_classes=4, fits=1)
    other = fit_expert("RF", features, labels, groups, val[:5], (val_labels[:5] + 1) % 4, n_classes=4, fits=1)
    np.testing.assert_array_equal(one.predict_probabilities(val), other.predict_probabilities(val))


def test_videos_without_a_label_are_left_out():
    (features, labels, groups), (val, val_labels, _) = made_up_videos(90, 1), made_up_videos(60, 2)
    unknown = np.where(np.arange(90) < 30, np.nan, labels)
    val_unknown = np.where(np.arange(60) < 30, np.nan, val_labels)
    with_nan = fit_expert("DT", features, unknown, groups, val, val_unknown, n_classes=4)
    without = fit_expert("DT", features[30:], labels[30:], groups[30:], val[30:], val_labels[30:], n_classes=4)
    np.testing.assert_array_equal(with_nan.predict_probabilities(val), without.predict_probabilities(val))
    assert with_nan.validated == without.validated


def test_calibration_keeps_groups_together_and_every_class_on_every_training_side():
    _, labels, groups = made_up_videos(120, 1)
    splits = _calibration_splits(labels, groups)
    assert len(splits) == 5
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(120))
    for train, test in splits:
        assert not set(groups[train]) & set(groups[test])
        assert set(labels[train]) == set(labels)


@pytest.mark.parametrize("groups", ["aaaabbbb", "aaaaaaaa", "abcdefgh", "aabbcccc"])
def test_calibration_copes_with_classes_of_one_group(groups):
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    splits = _calibration_splits(labels, np.array(list(groups)))
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(8))
    assert all(len(test) and set(labels[train]) == {0, 1} for train, test in splits)


def test_tiny_training_sets_work():
    features, _, _ = made_up_videos(8, 1)
    labels, groups = np.array([0, 0, 0, 0, 1, 2, 2, 1]), np.array(list("abcdefgh"))
    for name in EXPERT_NAMES:
        expert = fit_expert(name, features, labels, groups, features, labels, n_classes=4)
        assert expert.predict_probabilities(features).shape == (8, 4)


def test_input_that_cannot_be_used_is_refused():
    features, labels, groups = made_up_videos(30, 1)
    arguments = {
        "features": features,
        "labels": labels,
        "groups": groups,
        "val_features": features,
        "val_labels": labels,
        "n_classes": 4,
    }
    bad = features.copy()
    bad[3, 7] = np.nan
    for change, message in (
        ({"features": bad}, "training features hold nan in row 3, column 7"),
        ({"features": features[0]}, r"training features have shape \(38,\)"),
        ({"val_features": features[:, :5]}, r"validation features have shape \(30, 5\), expected \(V, 38\)"),
        ({"labels": labels[:-1]}, r"training labels have shape \(29,\)"),
        ({"groups": groups[:-1]}, "29 groups for 30 training videos"),
        ({"labels": labels + 1}, r"training labels hold \[1. 2. 3. 4.\], expected 0 to 3 or NaN"),
        ({"labels": np.zeros(30)}, "1 classes in the training set"),
        ({"val_labels": np.full(30, np.nan)}, "0 labelled validation videos"),
    ):
        with pytest.raises(LusbioError, match=message):
            fit_expert("DT", **arguments | change)
    with pytest.raises(ValueError, match="expert 'GP' is not one of DT, SVM"):
        fit_expert("GP", **arguments)
    with pytest.raises(LusbioError, match=r"features have shape \(30, 5\), expected \(V, 38\)"):
        fit("DT").predict_probabilities(features[:, :5])


def test_files_with_anything_unknown_inside_are_refused(tmp_path):
    skops_io = pytest.importorskip("skops.io")
    skops_io.dump({"model": np.random.default_rng, "path": zipfile.Path}, tmp_path / "strange.skops")
    with pytest.raises(LusbioError, match="zipfile.*not trusted; nothing was loaded"):
        load_expert(tmp_path / "strange.skops")
    (tmp_path / "text.skops").write_text("not a zip")
    with pytest.raises(LusbioError, match="text.skops is not an expert"):
        load_expert(tmp_path / "text.skops")
    with pytest.raises(LusbioError, match="absent.skops is not an expert"):
        load_expert(tmp_path / "absent.skops")
    skops_io.dump(make_expert("DT", 0), tmp_path / "model.skops")
    with pytest.raises(LusbioError, match="model.skops is not an expert"):
        load_expert(tmp_path / "model.skops")


def test_an_expert_of_another_scikit_learn_is_refused(tmp_path, monkeypatch):
    expert = fit("DT")
    with monkeypatch.context() as patch:
        patch.setattr(sklearn, "__version__", "1.2.3")
        save_expert(expert, tmp_path / "old.skops")
    with pytest.raises(LusbioError, match=r"written with scikit-learn 1\.2\.3, this is"):
        load_expert(tmp_path / "old.skops")
