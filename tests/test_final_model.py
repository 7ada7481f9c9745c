from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY, make_small_cohort, silent

from lusbio.experts.classifiers import load_expert, save_expert
from lusbio.experts.signs import fit_signs, predict_signs
from lusbio.runs.mixed_cohort import find_one_sided
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.scoring.final_model import train_final
from lusbio.scoring.score import find_model, find_videos, score_videos
from lusbio.signs.measure import SIGNS, measure_video
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


def test_signs_that_help_are_taken_and_the_card_says_so(trained, real):
    card, folder, _ = trained
    told = card["signs"][BIOMARKER_NAMES[0]]
    assert set(told["validation"]) == {"network", "signs", "both"} and told["from"]
    assert told["taken"] == (told["validation"]["both"] > told["validation"]["network"])
    assert (folder / f"{BIOMARKER_NAMES[0]}.skops").is_file() == told["taken"]
    assert NOWHERE not in card["signs"] and ONLY_SIMULATED not in card["signs"]


def test_what_signs_tell_is_averaged_with_what_the_network_says(trained, real):
    _, folder, _ = trained
    paths, model = find_videos(real.video_paths()[:3]), find_model(folder)
    values = np.stack([measure_video(path) for path in paths.values()])
    expert = fit_signs(np.random.default_rng(0).random((20, len(SIGNS))), np.arange(20) % 2, "pleura", 2)
    name = BIOMARKER_NAMES[0]
    without, beside = (score_videos(paths, replace(model, signs=signs)) for signs in ({}, {name: expert}))
    assert np.allclose(2 * beside[name] - without[name], predict_signs(expert, values)[:, 1])
    others = [column for column in without if column not in (name, "video_id")]
    assert np.allclose(without[others], beside[others], equal_nan=True)


def test_an_expert_on_signs_is_saved_without_pickle_and_predicts_the_same(tmp_path):
    values = np.random.default_rng(0).random((30, len(SIGNS)))
    values[::4, 5] = np.nan
    expert = fit_signs(values, np.arange(30) % 3, "all signs", 3)
    save_expert(expert, tmp_path / "signs.skops")
    assert np.array_equal(predict_signs(load_expert(tmp_path / "signs.skops"), values), predict_signs(expert, values))


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
