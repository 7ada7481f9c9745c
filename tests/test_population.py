"""The label model: what is labelled follows from the geometry, and the rates of the literature come out."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import spearmanr

from lusbio.files import PACKAGE
from lusbio.simulation import constants as c
from lusbio.simulation.patients import Findings, biomarkers_of, choices_of, grade_of, sized_choice
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import (
    SPECIALIST,
    TRAINEE,
    draw_luck,
    rate_biomarkers,
    rate_severity,
    round_grade,
    trainee_table,
)
from lusbio.simulation.targets import intraclass_correlation, score_forest, score_nuisance, summarise_targets
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKER_GROUPS, BIOMARKER_NAMES, group_names


@pytest.fixture(scope="module")
def recordings():
    return [r for seed in range(4) for r in simulate_recordings(189, seed)]


def test_the_default_cohort_has_718_videos_and_at_least_two_of_everyone():
    for seed in range(5):
        counts = np.bincount([r.patient.index for r in simulate_recordings(189, seed)])[1:]
        assert len(counts) == 189
        assert counts.sum() == 718
        assert counts.min() >= 2
        assert counts.max() <= 12


def test_every_number_is_used_and_every_one_used_is_there():
    sources = [path.read_text(encoding="utf-8") for path in (PACKAGE / "simulation").glob("*.py")]
    used = {name for source in sources for name in re.findall(r"\bc\.([A-Z][A-Z_]*)\b", source)}
    assert set(c.NUMBERS) <= used
    assert not [name for name in used if not hasattr(c, name)]


@pytest.mark.parametrize("patients", [1, 2, 7, 24])
def test_other_numbers_of_patients_scale(patients):
    recordings = simulate_recordings(patients, 0)
    assert len({r.patient.index for r in recordings}) == patients
    assert len(recordings) == max(2 * patients, round(718 / 189 * patients))


def test_cohorts_of_one_seed_are_equal_and_of_two_seeds_are_not():
    assert simulate_recordings(12, 5) == simulate_recordings(12, 5)
    assert simulate_recordings(12, 5) != simulate_recordings(12, 6)


def test_severity_follows_from_the_findings(recordings):
    for r in recordings:
        assert int(round_grade(r.severity)) == grade_of(r.findings), r


def test_what_is_labelled_fits_into_the_image(recordings):
    for r in recordings:
        f, device = r.findings, r.patient.device
        assert f.pleura_mm + f.thickness_mm + 1.1 * f.effusion_mm <= device.depth_mm - 8 + 1e-6
        if f.a_lines:
            assert (f.a_line_copies + 1) * f.pleura_mm < device.depth_mm
            assert f.a_line_width_mm > 6
            assert not f.white
            assert not f.effusion_mm
        assert bool(f.a_lines) == bool(f.a_line_copies) == bool(f.a_line_width_mm)
        assert f.lateral_mm <= device.width_mm


def test_lengths_keep_clear_of_the_limits_between_options(recordings):
    for r in recordings:
        f = r.findings
        widths = [*f.indents_mm, *f.breaks_mm, *f.consolidations_mm]
        assert all(min(abs(w - 5), abs(w - 10)) > 0.39 for w in widths)
        assert min(abs(f.effusion_mm - 5), 1) > 0.9
        low, high = [(0.5, 0.9), (2, 3), (4, 5), (5.4, 7)][choices_of(f, 50)["pleural thickness"]]
        assert low <= f.thickness_mm <= high


def test_every_group_has_one_option_for_truth_and_raters(recordings):
    for r in recordings[::7]:
        for bits in (biomarkers_of(r.findings, r.patient.device.depth_mm), rate_biomarkers(r, TRAINEE)):
            assert tuple(bits) == BIOMARKER_NAMES
            for group in BIOMARKER_GROUPS:
                assert sum(bits[n] for n in group_names(group) if n not in BIOMARKER_FLAGS) == 1
            assert bits["b_lines_none"] == bits["b_line_origin_na"]
            if bits["a_lines_none"]:
                assert not any(bits[flag] for flag in BIOMARKER_FLAGS)


def test_all_38_biomarkers_occur(recordings):
    table = trainee_table(recordings)
    assert (table[list(BIOMARKER_NAMES)].sum() > 0).all()


@pytest.mark.parametrize(
    ("widths", "option"),
    [((), 0), ((3.0,), 1), ((3.0, 2.0), 1), ((3.0, 2.0, 2.0), 2), ((3.0, 7.0), 3), ((10.0,), 3), ((12.0, 7.0), 4)],
)
def test_size_options_follow_number_and_largest_width(widths, option):
    assert sized_choice(widths) == option


@pytest.mark.parametrize(
    ("findings", "grade"),
    [
        (Findings(18), 0),
        (Findings(18, b_lines=2), 0),
        (Findings(18, b_lines=3), 1),
        (Findings(18, indents_mm=(3.0,)), 1),
        (Findings(18, breaks_mm=(3.0,)), 2),
        (Findings(18, coalescent_mm=(8.0,)), 2),
        (Findings(18, b_lines=7), 2),
        (Findings(18, consolidations_mm=(8.0,)), 2),
        (Findings(18, consolidations_mm=(12.0,)), 3),
        (Findings(18, white=True), 3),
    ],
)
def test_grades_follow_the_published_scale(findings, grade):
    assert grade_of(findings) == grade


def test_nuisance_knows_neither_disease_nor_severity():
    patients = {}
    for seed in range(12):
        for r in simulate_recordings(189, seed):
            patients.setdefault((seed, r.patient.index), []).append(r)
    severity = [np.mean([r.severity for r in videos]) for videos in patients.values()]
    devices = [videos[0].patient.device for videos in patients.values()]
    for name in (
        "depth_mm",
        "width_mm",
        "fps",
        "frequency_mhz",
        "gain_db",
        "dynamic_range_db",
        "persistence",
        "haze_db",
    ):
        assert abs(spearmanr(severity, [getattr(d, name) for d in devices]).statistic) < 0.07, name


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_motion_and_anatomy_alone_tell_neither_severity_nor_disease(probe):
    assert max(score_nuisance(300, seed=1, probe=probe).values()) < 0.55


def test_a_rater_errs_as_often_as_named(recordings):
    luck, errors = map(np.array, zip(*(draw_luck(r, TRAINEE) for r in recordings), strict=True))
    shares = [0.1, 0.4, 0.7]
    np.testing.assert_allclose(np.quantile(luck, shares, axis=0), np.array(shares)[:, None] + 0 * luck[:3], atol=0.04)
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose(errors.std(axis=0), 1, atol=0.05)
    for group in ("effusion", "consolidation"):
        truth = np.array([choices_of(r.findings, r.patient.device.depth_mm)[group] for r in recordings])
        none = np.array([rate_biomarkers(r, TRAINEE)[f"{group}_none"] for r in recordings])
        assert none[truth == 1].mean() == pytest.approx(c.RATER_ERRORS[group].missed, abs=0.08)
        assert 1 - none[truth == 0].mean() == pytest.approx(c.RATER_ERRORS[group].seen, abs=0.02)


def test_a_rater_errs_in_severity_and_in_biomarkers_at_once(recordings):
    scores = ndtri([draw_luck(r, TRAINEE)[0] for r in recordings])
    correlations = np.corrcoef(scores.T)[0, 1:]
    np.testing.assert_allclose(correlations, c.CARE, atol=0.08)
    off, wrong = [], []
    for r in recordings:
        truth, rated = biomarkers_of(r.findings, r.patient.device.depth_mm), rate_biomarkers(r, TRAINEE)
        off.append(rate_severity(r, TRAINEE) != round_grade(r.severity + TRAINEE.bias))
        wrong.append(sum(truth[name] != rated[name] for name in BIOMARKER_NAMES))
    assert np.corrcoef(off, wrong)[0, 1] > 0.05


def test_raters_err_independently_of_each_other(recordings):
    errors = [
        [int(rate_severity(r, rater)) - r.severity for r in recordings if 0.7 < r.severity < 2.3]
        for rater in (TRAINEE, SPECIALIST)
    ]
    assert abs(np.corrcoef(*errors)[0, 1]) < 0.35  # rounding of a shared truth correlates them a little
    assert np.mean(errors[0]) == pytest.approx(TRAINEE.bias, abs=0.05)
    assert np.mean(errors[1]) == pytest.approx(SPECIALIST.bias, abs=0.08)


@pytest.mark.slow
def test_realised_rates_are_within_tolerance_of_their_targets():
    table = summarise_targets(range(20), anchors=False)
    checked = table.dropna(subset=["low"])
    assert len(checked) > 45
    missed = checked[~checked["within"].astype(bool)]
    assert missed.empty, missed.to_string()


def test_disease_rates_hold_exactly_where_they_are_certain():
    table = summarise_targets(range(2), anchors=False).set_index(["group", "quantity"])["mean"]
    assert table[c.EDEMA, "B-lines"] == 1
    assert table[c.EDEMA, "consolidation"] == 0
    assert table[c.OTHER_LUNG, "abnormal pleura"] == 1


def test_intraclass_correlation_equals_the_variance_share_it_estimates():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(2000), 4)
    values = np.sqrt(0.3) * rng.standard_normal(2000)[groups] + np.sqrt(0.7) * rng.standard_normal(8000)
    assert intraclass_correlation(pd.Series(values), pd.Series(groups)) == pytest.approx(0.3, abs=0.03)


def test_the_oracle_beats_the_trainee_and_shuffled_biomarkers_are_chance(recordings):
    some = recordings[:718]
    y = np.array([rate_severity(r, TRAINEE) for r in some])
    groups = np.array([r.patient.index for r in some])
    true = np.array([list(biomarkers_of(r.findings, r.patient.device.depth_mm).values()) for r in some])
    rated = np.array([list(rate_biomarkers(r, TRAINEE).values()) for r in some])
    shuffled = np.random.default_rng(0).permutation(true)
    oracle, trainee, chance = (score_forest(x, y, groups) for x in (true, rated, shuffled))
    assert 0.62 < oracle["accuracy"] < 0.80
    assert trainee["accuracy"] < oracle["accuracy"]
    assert abs(chance["AUC"] - 0.5) < 0.06


def test_errors_name_the_value_found():
    with pytest.raises(ValueError, match="patients is 0"):
        simulate_recordings(0, 0)
    with pytest.raises(ValueError, match="'phased'"):
        simulate_recordings(2, 0, "phased")
