import numpy as np
import pytest
from helpers import made_up_row

from lusbio.errors import LusbioError
from lusbio.experts.patients import aggregate_patients, leave_out, share_places
from lusbio.experts.rows import Row
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import Kind


def make_row(labels, probabilities, groups, features=Kind.ADAPTED) -> Row:
    """One run that is tested and validated on the same videos; their rows begin at 100."""
    videos = HeldOut(np.asarray(labels), probabilities, groups, np.arange(100, 100 + len(labels)))
    classes = tuple(map(str, range(probabilities.shape[1])))
    return Row(features, "c", "t", (videos,), (videos,), classes)


def test_a_patient_is_the_mean_over_the_patients_videos():
    rng = np.random.default_rng(0)
    groups = rng.choice(list("abcdefgh"), 30)
    row = make_row([ord(group) % 2 for group in groups], rng.dirichlet(np.ones(2), 30), groups)
    (videos,), (result,) = row.held_out, aggregate_patients(row).held_out
    assert sorted(result.groups) == sorted(set(groups))
    for k, patient in enumerate(result.groups):
        of_patient = [i for i in range(30) if groups[i] == patient]
        mean = sum(videos.probabilities[i] for i in of_patient) / len(of_patient)
        np.testing.assert_allclose(result.probabilities[k], mean)
        assert result.labels[k] == videos.labels[of_patient[0]] and result.rows[k] == 100 + of_patient[0]
    (validated,) = aggregate_patients(row).validated
    np.testing.assert_array_equal(validated.probabilities, result.probabilities)


def test_videos_that_are_told_apart_by_nothing_make_patients_that_are_not():
    groups = np.array(list("abbcccddddeeeeeffffff"))
    labels = [ord(group) % 2 for group in groups]
    (result,) = aggregate_patients(make_row(labels, np.full((21, 2), [0.1 + 0.6, 0.3]), groups)).held_out
    assert len(np.unique(result.probabilities, axis=0)) == 1


def test_what_differs_within_a_patient_is_not_about_patients():
    with pytest.raises(LusbioError, match="different labels"):
        aggregate_patients(make_row([0, 1], np.full((2, 2), 0.5), np.array(["a", "a"])))


def test_other_places_of_a_patient_count_as_much_as_the_video_itself():
    rng = np.random.default_rng(0)
    groups, p = rng.choice(list("abcd"), 20), rng.dirichlet(np.ones(4), 20)
    before = make_row(rng.integers(0, 4, 20), p, groups)
    row = share_places(before)
    assert row.features == Kind.ADAPTED_ALL_PLACES == "adapted_biomarkers_all_places"
    for k in range(20):
        mean = np.mean([p[j] for j in range(20) if groups[j] == groups[k]], axis=0)
        np.testing.assert_allclose(row.held_out[0].probabilities[k], (p[k] + mean) / 2)
    np.testing.assert_array_equal(row.held_out[0].labels, before.held_out[0].labels)
    np.testing.assert_array_equal(row.validated[0].probabilities, row.held_out[0].probabilities)


def test_patients_can_be_left_out():
    row = made_up_row(Kind.BIOMARKERS, "RF", 0)
    fewer = leave_out(row, ["3", "4"])
    for fold in fewer.held_out:
        assert set(fold.groups) == {str(k) for k in range(20)} - {"3", "4"} and len(fold.groups) == len(fold.rows) == 54
    assert fewer.validated == row.validated
    assert leave_out(row, [str(k) for k in range(20)]).held_out == ()
