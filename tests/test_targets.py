"""Which videos are learnt from, and what: encoded tasks, selected and repeated rows."""

import numpy as np
import pytest
from helpers import make_small_cohort

from lusbio.cohorts.splits import assign_splits, make_folds
from lusbio.cohorts.targets import encode_task, repeat_rare, select_rows
from lusbio.errors import LeakageError, LusbioError
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS


@pytest.fixture
def table(tmp_path):
    return make_small_cohort(tmp_path).table


@pytest.fixture
def splits(table):
    return assign_splits(table, make_folds(table, "paper"), 0, "paper")


def test_classes_become_their_position_and_unknown_becomes_minus_one(table):
    table.loc[0, "disease"] = np.nan
    encoded = encode_task(table, "disease")
    assert encoded[0] == -1
    assert [TASKS["disease"].classes[k] for k in encoded[1:]] == table["disease"][1:].tolist()


def test_a_biomarker_with_one_value_in_training_is_masked_everywhere(table, splits):
    table.loc[splits != "train", BIOMARKER_NAMES[20]] = 0.0  # two values in the cohort, one in training
    rows, targets, masked = select_rows(table, splits, BIOMARKER_TASK)
    assert (~np.isnan(targets).all(0)).sum() == 2
    assert BIOMARKER_NAMES[20] in masked and BIOMARKER_NAMES[0] not in masked and len(masked) == 36
    assert len(rows["train"]) == (splits == "train").sum()


def test_videos_without_a_label_are_not_learnt_from(table, splits):
    unknown = table["patient_id"] == table["patient_id"][splits == "train"].iloc[0]
    table.loc[unknown, "lung_severity"] = np.nan
    rows, targets, _ = select_rows(table, splits, "lung_severity")
    assert (targets[unknown] == -1).all() and not set(rows["train"]) & set(np.flatnonzero(unknown))


def test_rows_never_leave_their_split(table, splits):
    rows, _, _ = select_rows(table, splits, "disease")
    assert set(splits.iloc[rows["train"]]) == {"train"} and set(splits.iloc[rows["val"]]) == {"val"}
    repeated = repeat_rare(table, rows["train"], "disease", seed=0)
    assert set(repeated) == set(rows["train"])
    counts = np.bincount(encode_task(table, "disease")[repeated])
    assert len(set(counts[counts > 0])) == 1, "classes are not balanced"


def test_biomarkers_are_balanced_by_severity(table, splits):
    rows, _, _ = select_rows(table, splits, BIOMARKER_TASK)
    counts = np.bincount(encode_task(table, "lung_severity")[repeat_rare(table, rows["train"], BIOMARKER_TASK, 0)])
    assert len(set(counts)) == 1


def test_nothing_to_learn_is_an_error(table, splits):
    with pytest.raises(LusbioError, match="fewer than two classes of lung_severity"):
        select_rows(table.assign(lung_severity="1"), splits, "lung_severity")
    with pytest.raises(LusbioError, match="no val video has a label for disease"):
        select_rows(table.assign(disease=table["disease"].where(splits != "val")), splits, "disease")


def test_a_leak_is_an_error(table, splits):
    splits.iloc[0] = "test" if splits.iloc[0] != "test" else "train"
    with pytest.raises(LeakageError, match="stands in 2 splits"):
        select_rows(table, splits, "disease")
