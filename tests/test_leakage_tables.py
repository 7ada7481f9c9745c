from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from small_cohort import TINY, make_small_cohort
from test_leakage import as_pocovid, make_material

from lusbio.experts.inputs import END_TO_END
from lusbio.paper.leakage import (
    FRAMES,
    PIXELS,
    RUNGS,
    SEVERITY,
    SOURCE,
    ask_diagnosis,
    climb,
    decide_by_frequency,
    decide_by_known_source,
)
from lusbio.paper.leakage_tables import (
    DIAGNOSIS_METRICS,
    arrange_for_figure,
    compare_intervals,
    describe_ladder,
    describe_material,
    describe_severity,
    find_lookalikes,
    make_ladder,
    measure_diagnosis,
    measure_falls,
    show_down_to,
    widen_ladder,
)
from lusbio.report.result_figures import plot_results
from lusbio.runs.spec import prepare_cohort

LABELS = np.random.default_rng(1).permutation(np.arange(24) % 3)


@pytest.fixture(scope="module")
def material():
    return make_material(LABELS, fingerprint=("group", 1.0), signal=0.3)


@pytest.fixture(scope="module")
def decided(material):
    found = climb(material, PIXELS, repeats=2)[0] | climb(material, SOURCE, repeats=2)[0]
    return found | decide_by_frequency(material) | decide_by_known_source(material)


@pytest.fixture(scope="module")
def table(decided, material):
    return make_ladder(decided, material, 50)


@pytest.fixture(scope="module")
def falls(decided):
    return measure_falls(decided, 50)


def test_the_measure_equals_scikit_learn_s_under_any_weights():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    weights = rng.integers(0, 3, (4, 60)).astype(float)
    found = measure_diagnosis(labels, probabilities, weights)
    decided = probabilities.argmax(1)
    for draw, weight in enumerate(weights):
        kept = {"sample_weight": weight}
        assert found["accuracy"][draw] == pytest.approx(accuracy_score(labels, decided, **kept))
        assert found["balanced_accuracy"][draw] == pytest.approx(balanced_accuracy_score(labels, decided, **kept))
    plain = measure_diagnosis(labels, probabilities, np.ones((1, 60)))["auc"][0]
    assert plain == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovo", average="weighted"))


def test_a_class_that_a_draw_left_out_does_not_count_in_balanced_accuracy():
    labels, right = np.array([0, 1, 2]), np.eye(3)
    found = measure_diagnosis(labels, right[[0, 1, 0]], np.array([[1.0, 1, 1], [1, 1, 0]]))
    np.testing.assert_allclose(found["balanced_accuracy"], [2 / 3, 1])


def test_the_ladder_has_every_rung_and_says_how_many_videos_and_units(table, material):
    assert set(table["n_videos"]) == {96} and set(table["metric"]) == set(DIAGNOSIS_METRICS)
    pixels = table[(table["features"] == PIXELS) & (table["metric"] == "accuracy")]
    assert dict(zip(pixels["rung"], pixels["n_units"], strict=True)) == {
        "frame": 96 * FRAMES,
        "video": 96,
        "patient": 48,
        "group": 24,
        "source": 6,
    }
    assert (pixels["ci_low"] <= pixels["mean"]).all() and (pixels["mean"] <= pixels["ci_high"]).all()
    means = pixels.set_index("rung")["mean"]
    assert means["frame"] > 95 > means["group"]
    assert pixels.set_index("rung")["sd"]["source"] == 0


def test_the_ladder_is_readable(table):
    shown = widen_ladder(table)
    assert list(shown) == ["decided from", "split by", "of these", *DIAGNOSIS_METRICS.values()]
    assert shown["split by"].tolist()[:5] == list(RUNGS.values())
    assert shown["decided from"].iloc[-2:].tolist() == ["anchor: source alone", "anchor: class frequencies"]
    assert shown["of these"].tolist()[0] == 96 * FRAMES and shown["of these"].tolist()[-1] == "—"
    assert not shown.isna().any(axis=None)
    down_to = show_down_to(shown, "video")
    assert down_to["split by"].tolist() == ["frame", "video", "video"]  # of pixels, and of the source


def test_the_ladder_can_be_drawn(table):
    figure, ax = plt.subplots()
    plot_results(arrange_for_figure(table), "disease", "accuracy", ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()][:5] == list(RUNGS.values())
    plt.close(figure)


def test_falls_are_differences_of_neighbouring_rungs(table, falls):
    means = table.set_index(["features", "rung", "metric"])["mean"]
    pixels = falls[falls["features"] == PIXELS]
    assert len(pixels) == 4 * 3 and set(falls["features"]) == {PIXELS, SOURCE}
    for row in falls.itertuples():
        ends = [means[row.features, rung, row.metric] for rung in (row.next_rung, row.rung)]
        assert row.difference == pytest.approx(ends[0] - ends[1])
        assert row.ci_low <= row.ci_high


def test_a_frame_resembles_its_own_video_until_its_video_is_held_out():
    shares = find_lookalikes(make_material(LABELS, fingerprint=("video", 3.0)))
    assert list(shares.index) == list(RUNGS.values()) and shares.iloc[0]["same video"] == 100
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    for step in range(1, 5):
        assert (shares.iloc[step, :step] == 0).all()
    of_groups = find_lookalikes(make_material(LABELS, fingerprint=("group", 3.0)))
    assert of_groups.loc["metadata patient", "same group"] > 50  # the other patients of its group
    assert of_groups.loc["conservative group", "elsewhere"] > 50


def test_an_interval_over_videos_is_narrower_than_one_over_groups_of_equal_videos():
    material = make_material(np.arange(24) % 3, videos=6)
    labels, groups = material.labels, material.units["group"].to_numpy()
    right = np.repeat(np.arange(24) % 2, 6).astype(bool)  # whole groups are right, or wrong
    probabilities = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    found = compare_intervals([(labels, probabilities, groups)], material, 500).set_index("drawn")
    assert list(found.index) == ["video", "metadata patient", "conservative group", "source"]
    assert set(found["accuracy"]) == {50} and found["units"].tolist() == [144, 72, 24, 6]
    assert found["width"]["conservative group"] > 1.8 * found["width"]["video"]


def test_the_line_above_the_table_says_how_many_videos_of_how_many(tmp_path):
    cohort = as_pocovid(make_small_cohort(tmp_path, simulated=False))
    prepared = prepare_cohort(cohort, TINY, protocol="cross")
    line = describe_material(ask_diagnosis(prepared), prepared)
    assert "**Real** patients, cohort `pocovid`: 40 convex videos of 10 conservative groups (healthy: 14 in 7, " in line
    assert ") and 4 sources · 40 of 131 videos present · " in line and "commit `" in line
    assert "p0_v0" not in line and "0-g0" not in line


def test_the_sentences_give_both_ends_every_step_and_what_needs_no_picture(table, falls):
    sentences = describe_ladder(table, falls)
    assert sentences[0].startswith("One model, 96 videos, accuracy: 100 [")
    assert "split by source, one at a time; always the most frequent class: 33." in sentences[0]
    assert len(sentences) == 6 and "Source id" not in " ".join(sentences[:-1])
    assert sentences[-1].startswith("Without a picture, split by video, accuracy: source id ")


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1, 9, "a rise, and"), (-9, -1, "a fall, and"), (-4, 6, "no difference")]
)
def test_a_step_is_called_what_its_interval_says(table, falls, low, high, verdict):
    step = falls.iloc[:3].assign(features=END_TO_END, ci_low=low, ci_high=high, rung="video", next_rung="group")
    sentence = describe_ladder(table, pd.concat([falls, step]))[5]
    assert sentence.startswith("End-to-end, from video to conservative group: balanced accuracy")
    assert verdict in sentence


def test_severity_is_told_across_and_within_sources():
    material = replace(make_material(np.arange(12) // 6, n_sources=2), task=SEVERITY, classes=("0", "1-3"))
    decided = climb(material, PIXELS, ["video", "group"], repeats=2)[0] | decide_by_known_source(material)
    table = make_ladder(decided, material, 50)
    assert set(table["metric"]) == {"zero_auc", "zero_auc_within_sources"}
    assert table["mean"].iloc[-1] == 50
    sentences = describe_severity(table, material)
    assert "Severity 0 against 1-3, 48 videos: 2 of 2 sources have both, with 288 pairs" in sentences[0]
    assert len(sentences) == 3 and "within sources" in sentences[1]
    apart = replace(material, units=material.units.assign(source=material.labels.astype(str)))
    decided = climb(apart, PIXELS, ["video"], repeats=1)[0] | decide_by_known_source(apart)
    told = describe_severity(make_ladder(decided, apart, 50), apart)
    assert "0 of 2 sources have both" in told[0] and "AUC of 100" in told[0] and "not defined within" in told[1]
