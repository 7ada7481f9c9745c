from dataclasses import replace

import pytest
from helpers import TINY, make_small_cohort, silent

from lusbio.runs.mixed_cohort import find_one_sided
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.scoring.final_model import train_final
from lusbio.scoring.score import find_model, find_videos, score_videos
from lusbio.vocabulary import BIOMARKER_NAMES

ONLY_SIMULATED = BIOMARKER_NAMES[2]
NOWHERE = BIOMARKER_NAMES[3]

pytestmark = pytest.mark.usefixtures("one_fit")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    cohort = make_small_cohort(tmp_path_factory.mktemp("real"), simulated=False)
    return replace(cohort, name="real")


@pytest.fixture(scope="module")
def trained(real, tmp_path_factory):
    """The card, its folder, and which simulated cohort was asked for."""
    simulated = make_small_cohort(tmp_path_factory.mktemp("simulated"), patients=24)
    simulated.table[ONLY_SIMULATED] = (simulated.table["lung_severity"] > "1").astype(float)
    asked, folder = [], tmp_path_factory.mktemp("model")

    def open_simulated(profile, name, jobs):
        asked.append(name)
        return as_study(prepare_cohort(replace(simulated, name=name), TINY))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lusbio.scoring.final_model.open_study", open_simulated)
        card = train_final(as_study(prepare_cohort(real, TINY, protocol="final")), folder, silent)
    return card, folder, asked


def test_a_cohort_with_too_few_labels_learns_the_others_from_simulated_patients(trained, real):
    card, folder, asked = trained
    assert asked == ["synthetic"]  # nothing says that the probe is convex
    assert ONLY_SIMULATED in card["simulated_only"] and NOWHERE in card["masked"]
    assert BIOMARKER_NAMES[0] not in card["simulated_only"]
    scores = score_videos(find_videos(real.video_paths()[:3]), find_model(folder))
    assert scores[ONLY_SIMULATED].between(0, 1).all() and scores[NOWHERE].isna().all()


def test_the_card_counts_real_patients_alone(trained):
    card, _, _ = trained
    assert card["cohort"] == "real" and not card["simulated"]
    assert card["videos"] == {"train": 32, "val": 8}
    assert card["experts"]["lung_severity"]["validation"]["patients"] == 4


@pytest.mark.slow
def test_where_everything_is_labelled_nothing_is_simulated(real, tmp_path, monkeypatch):
    labels = real.table["lung_severity"] > "1"
    table = real.table.assign(**dict.fromkeys(BIOMARKER_NAMES, labels.astype(float)))
    complete = replace(real, table=table)
    assert set(find_one_sided(real.table)) == set(BIOMARKER_NAMES) - {BIOMARKER_NAMES[0], BIOMARKER_NAMES[5]}
    assert find_one_sided(table) == []
    monkeypatch.setattr("lusbio.scoring.final_model.open_study", None)  # calling it would raise
    for cohort in (complete, replace(real, simulated=True)):
        study = as_study(prepare_cohort(cohort, TINY, protocol="final"))
        assert train_final(study, tmp_path / str(cohort.simulated), silent)["simulated_only"] == []


def test_convex_patients_get_convex_simulated_ones(real, tmp_path, monkeypatch):
    asked = []

    def open_simulated(profile, name, jobs):
        asked.append(name)
        raise InterruptedError

    monkeypatch.setattr("lusbio.scoring.final_model.open_study", open_simulated)
    convex = replace(real, table=real.table.assign(probe="convex"))
    with pytest.raises(InterruptedError):
        train_final(as_study(prepare_cohort(convex, TINY, protocol="final")), tmp_path, silent)
    assert asked == ["synthetic_convex"]
