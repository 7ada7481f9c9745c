import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.splits import (
    FOLDS,
    assign_splits,
    check_folds,
    check_no_leakage,
    choose_protocol,
    make_folds,
    oversample,
    run_folds,
)
from lusbio.errors import LeakageError, LusbioError
from lusbio.vocabulary import SPLITS, TASKS

SEVERITIES = TASKS["lung_severity"].classes


def made_up_table(n_groups: int, seed: int = 0) -> pd.DataFrame:
    """Patients with 2 to 8 videos whose severities belong together; some are unknown."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(n_groups):
        usual = rng.integers(4)
        for _ in range(rng.integers(2, 9)):
            severity = SEVERITIES[int(np.clip(usual + rng.integers(-1, 2), 0, 3))]
            rows.append((f"g{group:03d}", f"p{group:03d}", severity if rng.random() > 0.1 else np.nan))
    return pd.DataFrame(rows, columns=["group_id", "patient_id", "lung_severity"])


@pytest.mark.parametrize("protocol", FOLDS)
@pytest.mark.parametrize("n_groups", [5, 6, 24, 63, 189])
def test_folds_never_share_a_group_and_leave_none_out(protocol, n_groups):
    table = made_up_table(n_groups)
    folds = make_folds(table, protocol)
    assert sorted(folds["group_id"]) == sorted(set(table["group_id"]))
    assert set(folds["fold"]) == set(range(FOLDS[protocol]))
    check_folds(table, folds)


@pytest.mark.parametrize("protocol", FOLDS)
def test_every_run_uses_every_video_once_and_never_leaks(protocol):
    table = made_up_table(40)
    folds = make_folds(table, protocol)
    tested = []
    for run_fold in run_folds(protocol):
        splits = assign_splits(table, folds, run_fold, protocol)
        assert set(splits) == set(SPLITS if protocol != "final" else SPLITS[:2])
        assert splits.index.equals(table.index)
        check_no_leakage(table, splits)
        tested.append(set(table.index[splits == SPLITS[2]]))
    if protocol == "paper":
        assert tested[0] == tested[1] == tested[2]
    if protocol == "cross":
        assert sum(len(videos) for videos in tested) == len(table) == len(set.union(*tested))


def test_no_run_trains_on_a_video_it_tests_even_when_the_index_is_strange():
    table = made_up_table(24).sample(frac=1, random_state=1)
    table.index = table.index * 7 + 3
    splits = assign_splits(table, make_folds(table, "paper"), 1, "paper")
    groups = {name: set(table["group_id"][splits == name]) for name in SPLITS}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["val"]
    assert not groups["val"] & groups["test"]


def test_the_papers_cohort_gives_the_papers_fold_sizes():
    folds = make_folds(made_up_table(189), "paper")
    assert folds["fold"].value_counts().sort_index().tolist() == [48, 48, 47, 46]


def test_folds_are_alike_in_videos_and_severity():
    table = made_up_table(189)
    for protocol in FOLDS:
        fold = table["group_id"].map(make_folds(table, protocol).set_index("group_id")["fold"])
        by_fold = table.assign(severity=pd.to_numeric(table["lung_severity"])).groupby(fold)
        videos_per_group = by_fold.size() / by_fold["group_id"].nunique()
        assert np.ptp(videos_per_group) < 0.25
        assert np.ptp(by_fold["severity"].mean()) < 0.3


def test_folds_do_not_depend_on_the_order_of_rows():
    table = made_up_table(40)
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(make_folds(table, "paper"), make_folds(shuffled, "paper"))


def test_folds_need_no_severity():
    table = made_up_table(12).assign(lung_severity=np.nan)
    assert make_folds(table, "cross")["fold"].value_counts().tolist() == [3, 3, 2, 2, 2]


@pytest.mark.parametrize("protocol", FOLDS)
def test_fewer_groups_than_folds_is_an_error_that_says_so(protocol):
    table = made_up_table(FOLDS[protocol] - 1)
    with pytest.raises(LusbioError, match=f"at least {FOLDS[protocol]} groups, the table has {FOLDS[protocol] - 1}"):
        make_folds(table, protocol)
    make_folds(made_up_table(FOLDS[protocol]), protocol)


def test_missing_columns_groups_and_folds_are_named():
    table = made_up_table(8)
    with pytest.raises(LusbioError, match="column 'lung_severity' is missing"):
        make_folds(table.drop(columns="lung_severity"), "paper")
    with pytest.raises(LusbioError, match="'group_id' is empty"):
        make_folds(table.assign(group_id=[np.nan, *table["group_id"][1:]]), "paper")
    folds = make_folds(table, "paper")
    with pytest.raises(LusbioError, match="1 groups of the table have no fold, e.g. 'g000'"):
        assign_splits(table, folds[1:], 0, "paper")
    with pytest.raises(ValueError, match="run fold 3 is not one of"):
        assign_splits(table, folds, 3, "paper")
    with pytest.raises(ValueError, match="protocol 'papr' is not one of paper, cross, final"):
        make_folds(table, "papr")


def test_a_group_in_two_folds_is_found():
    table = made_up_table(8)
    folds = make_folds(table, "paper")
    other = (folds["fold"][0] + 1) % 4
    doubled = pd.concat([folds, pd.DataFrame({"group_id": ["g000"], "fold": [other]})])
    with pytest.raises(LeakageError, match="group 'g000' stands in 2 folds"):
        check_folds(table, doubled)
    with pytest.raises(LusbioError, match="group 'g000' has two rows"):
        check_folds(table, pd.concat([folds, folds[:1]]))


def test_a_patient_in_two_folds_is_found():
    table = made_up_table(8).assign(patient_id="p000")
    with pytest.raises(LeakageError, match=r"patient 'p000' stands in 4 folds \(0, 1, 2, 3\)"):
        check_folds(table, make_folds(table, "paper"))


def test_a_group_or_patient_on_both_sides_of_a_split_is_found():
    table = pd.DataFrame({"group_id": ["a", "a", "b"], "patient_id": ["x", "x", "y"]})
    with pytest.raises(LeakageError, match=r"group 'a' stands in 2 splits \(test, train\)"):
        check_no_leakage(table, pd.Series(["train", "test", "val"]))
    by_clip = table.assign(group_id=["a", "b", "c"])
    with pytest.raises(LeakageError, match=r"patient 'x' stands in 2 splits"):
        check_no_leakage(by_clip, pd.Series(["train", "test", "val"]))
    check_no_leakage(table, pd.Series(["train", np.nan, "val"]))
    with pytest.raises(LusbioError, match="2 splits for 3 videos"):
        check_no_leakage(table, pd.Series(["train", "test"]))
    with pytest.raises(LusbioError, match="'training' is not one of"):
        check_no_leakage(table, pd.Series(["training", "training", "val"]))


def test_small_real_cohorts_are_cross_tested():
    assert choose_protocol(189, simulated=False) == "paper"
    assert choose_protocol(63, simulated=False) == "cross"
    assert choose_protocol(24, simulated=True) == "paper"
    assert run_folds("cross") == range(5)


def test_oversampling_levels_the_classes_and_keeps_every_video():
    table = made_up_table(60)
    rows = oversample(table["lung_severity"], table["group_id"], seed=0)
    assert set(rows) == set(range(len(table)))
    known = table["lung_severity"].iloc[rows].dropna()
    assert known.value_counts().nunique() == 1
    unknown = np.flatnonzero(table["lung_severity"].isna())
    assert np.isin(rows, unknown).sum() == len(unknown) > 0


def test_oversampling_repeats_patients_equally_often():
    labels = np.array([0] * 5000 + [1] * 100)
    groups = np.array(["common"] * 5000 + ["many"] * 99 + ["one"])
    rows = oversample(labels, groups, seed=1)
    repeats = groups[rows[len(labels) :]]
    assert 0.45 < np.mean(repeats == "one") < 0.55


def test_oversampling_is_decided_by_the_seed():
    labels, groups = [0, 0, 0, 0, 1, 1], list("abcdef")
    draws = [oversample(labels, groups, seed).tolist() for seed in range(20)]
    assert oversample(labels, groups, 3).tolist() == draws[3]
    assert len({tuple(draw) for draw in draws}) > 1


def test_oversampling_takes_strings_floats_and_nothing_at_all():
    assert oversample(["b", None, "a", "a"], list("wxyz"), 0).tolist() == [0, 1, 2, 3, 0]
    assert oversample(["b", np.nan, "a", "a"], list("wxyz"), 0).tolist() == [0, 1, 2, 3, 0]
    assert oversample([1.0, np.nan, 0.0, 0.0], list("wxyz"), 0).tolist() == [0, 1, 2, 3, 0]
    assert oversample([np.nan, np.nan], list("ab"), 0).tolist() == [0, 1]
    with pytest.raises(LusbioError, match="1 labels for 2 groups"):
        oversample([0], list("ab"), 0)
