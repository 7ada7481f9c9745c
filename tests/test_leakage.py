import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import TINY, as_pocovid, make_ladder_videos, make_small_cohort
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import KFold

from lusbio.cohorts.splits import check_no_leakage
from lusbio.errors import LeakageError, LusbioError, NothingToDo
from lusbio.experts.baselines import FRAMES, make_throwaway_model
from lusbio.paper import leakage
from lusbio.paper.leakage import (
    RUNGS,
    RUNGS_OF,
    compare_intervals,
    cross_validate,
    deal_folds,
    decide_by_frequency,
    decide_by_known_source,
    decide_by_network,
    describe_ladder,
    describe_severity,
    describe_videos,
    evaluate_splits,
    find_lookalikes,
    find_units,
    measure_diagnosis,
    measure_falls,
    measure_ladder,
    open_videos,
    pretend_videos_are_patients,
    take_diagnosis,
    take_severity,
    widen_ladder,
)
from lusbio.report.result_figures import plot_results
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import DISEASE, SEVERITY, Kind

LABELS = np.random.default_rng(1).permutation(np.arange(24) % 3)  # the class says nothing about the pictures


def accuracy_by_rung(videos, features=Kind.PIXELS, rungs=(), repeats=3):
    decided, reasons = evaluate_splits(videos, features, rungs, repeats)
    assert reasons == []
    return {
        rung: np.mean([np.mean(one.probabilities.argmax(1) == one.labels) for one in held_out])
        for (_, rung), held_out in decided.items()
    }


def test_a_fingerprint_of_the_patient_scores_high_where_it_leaks_and_chance_where_it_does_not():
    found = accuracy_by_rung(make_ladder_videos(LABELS))
    assert min(found["frame"], found["video"], found["patient"]) > 0.9
    assert max(found["group"], found["source"]) < 0.5


def test_a_fingerprint_of_the_source_leaks_until_sources_are_held_out():
    labels = np.arange(24) % 6 % 3  # every source has one class
    found = accuracy_by_rung(make_ladder_videos(labels, fingerprint=("source", 2.0)))
    assert min(found["frame"], found["video"], found["group"]) > 0.9
    assert found["source"] < 0.5


def test_what_is_really_there_survives_every_rung():
    found = accuracy_by_rung(make_ladder_videos(LABELS, signal=2.0, fingerprint=("group", 0.2)))
    assert list(found) == list(RUNGS) and min(found.values()) > 0.9


@pytest.mark.parametrize("rung", RUNGS)
def test_no_rung_tears_its_unit_apart_and_every_frame_is_held_out_once(rung):
    videos = make_ladder_videos(np.arange(12) % 3)
    units = find_units(videos, rung, FRAMES)
    for folds in deal_folds(rung, repeats=2):
        held_out = np.zeros(len(units), dtype=int)
        for train, test in folds.split(units, groups=units):
            assert not set(units[train]) & set(units[test])
            held_out[test] += 1
        assert (held_out == 1).all()


def test_frames_are_dealt_as_by_a_plain_kfold():
    units = find_units(make_ladder_videos(np.arange(12) % 3), "frame", FRAMES)
    (ours,), plain = deal_folds("frame", repeats=1), KFold(5, shuffle=True, random_state=0)
    for (_, mine), (_, theirs) in zip(ours.split(units, groups=units), plain.split(units), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_stricter_rung_keeps_everything_together_that_a_looser_one_does():
    videos = make_ladder_videos(np.arange(12) % 3)
    finer = [find_units(videos, rung, FRAMES) for rung in RUNGS]
    for fine, coarse in zip(finer, finer[1:], strict=False):
        assert pd.Series(coarse).groupby(fine).nunique().max() == 1


def test_a_class_that_lives_in_one_group_cannot_be_found_when_that_group_is_held_out():
    labels = np.array([0, 1] * 8 + [2])
    videos = make_ladder_videos(labels, signal=3.0, fingerprint=("group", 0.1))
    lonely = videos.labels == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        honest, leaky = (cross_validate(videos, Kind.PIXELS, rung, repeats=2) for rung in ("group", "video"))
    for probabilities in honest:
        assert probabilities.shape == (len(videos.labels), FRAMES, 3)
        assert (probabilities[lonely, :, 2] == 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=2), 1)
    assert all((p[lonely].mean(axis=1).argmax(1) == 2).all() for p in leaky)


def test_a_student_can_add_a_rung():
    videos = make_ladder_videos(LABELS)
    videos.units["hospital"] = videos.units["group"]
    assert accuracy_by_rung(videos, rungs=["hospital"])["hospital"] < 0.5


def test_too_few_groups_are_a_line_and_no_error():
    decided, reasons = evaluate_splits(make_ladder_videos([0, 1, 2]), Kind.PIXELS, repeats=1)
    assert [rung for _, rung in decided] == ["frame", "video", "patient", "source"]
    assert reasons == ["pooled pixels, split by conservative group: there are 3, at least 5 are needed"]


def test_a_training_part_with_one_class_is_a_line_and_no_error():
    videos = make_ladder_videos([0, 0, 0, 0, 0, 1])
    decided, reasons = evaluate_splits(videos, Kind.PIXELS, ["group"], repeats=1)
    assert not decided and "a single class is left" in reasons[0]


def test_files_and_sources_decide_without_a_picture():
    videos = make_ladder_videos(np.arange(24) % 3, fingerprint=("group", 0.0), n_sources=6)
    files, source = (accuracy_by_rung(videos, features) for features in (Kind.FILES, Kind.SOURCE_NAME))
    assert min(files.values()) == 1 and tuple(files) == RUNGS_OF[Kind.FILES]
    assert min(source.values()) == 1 and tuple(source) == ("video", "patient", "group")
    with pytest.raises(ValueError, match="pooled_pixels, file_metadata, source_id"):
        make_throwaway_model("names")


def test_decisions_are_the_same_again_and_differ_between_deals():
    videos = make_ladder_videos(np.arange(12) % 3, signal=0.3)
    first, again = (cross_validate(videos, Kind.PIXELS, "group", repeats=2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 0


def test_baselines_are_class_frequencies_of_everybody_and_of_the_source():
    videos = make_ladder_videos([0, 0, 1, 1], n_sources=2)
    ((everybody,),) = decide_by_frequency(videos).values()
    np.testing.assert_array_equal(everybody.probabilities, 0.5)
    assert everybody.labels is videos.labels and everybody.groups.tolist() == videos.units["group"].tolist()
    ((of_source,),) = decide_by_known_source(videos).values()
    np.testing.assert_array_equal(of_source.probabilities, 0.5)
    (apart,) = decide_by_known_source(make_ladder_videos([0, 1, 0, 1], n_sources=2))[Kind.SOURCE_ONLY, "—"]
    assert (apart.probabilities.argmax(1) == make_ladder_videos([0, 1, 0, 1]).labels).all()
    assert list(decide_by_frequency(videos)) == [(Kind.MAJORITY, "—")]


# --- numbers, and what people read ---


@pytest.fixture(scope="module")
def videos():
    return make_ladder_videos(LABELS, fingerprint=("group", 1.0), signal=0.3)


@pytest.fixture(scope="module")
def decided(videos):
    pixels, source = (evaluate_splits(videos, kind, repeats=2)[0] for kind in (Kind.PIXELS, Kind.SOURCE_NAME))
    return pixels | source | decide_by_known_source(videos) | decide_by_frequency(videos)


@pytest.fixture(scope="module")
def table(decided, videos):
    return measure_ladder(decided, videos, 50)


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


def test_the_ladder_has_every_rung_and_says_how_many_videos_and_units(table, videos):
    assert set(table["n_videos"]) == {96} and set(table["metric"]) == {"accuracy", "balanced_accuracy", "auc"}
    pixels = table[(table["features"] == Kind.PIXELS) & (table["metric"] == "accuracy")]
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
    assert not pixels.set_index("rung")["sd"]["source"] > 0  # there is one deal only


def test_the_ladder_is_readable(table):
    shown = widen_ladder(table)
    assert list(shown) == ["decided from", "split by", "of these", "Accuracy", "Balanced accuracy", "AUC"]
    assert shown["split by"].tolist()[:5] == list(RUNGS.values())
    assert shown["decided from"].iloc[-2:].tolist() == ["baseline: source alone", "baseline: class frequencies"]
    assert shown["of these"].iloc[[0, -1]].tolist() == [str(96 * FRAMES), "—"]
    assert not shown.isna().any(axis=None)


def test_the_ladder_can_be_drawn(table):
    figure, ax = plt.subplots()
    plot_results(
        table.assign(classifier=table["rung"].replace(RUNGS), published_mean=np.nan), DISEASE, "accuracy", ax=ax
    )
    assert [label.get_text() for label in ax.get_yticklabels()][:5] == list(RUNGS.values())
    plt.close(figure)


def test_falls_are_differences_of_neighbouring_rungs(table, falls):
    means = table.set_index(["features", "rung", "metric"])["mean"]
    pixels = falls[falls["features"] == Kind.PIXELS]
    assert len(pixels) == 4 * 3 and set(falls["features"]) == {Kind.PIXELS, Kind.SOURCE_NAME}
    for row in falls.itertuples():
        ends = [means[row.features, rung, row.metric] for rung in (row.next_rung, row.rung)]
        assert row.mean == pytest.approx(ends[0] - ends[1])
        assert row.ci_low <= row.ci_high


def test_a_frame_resembles_its_own_video_until_its_video_is_held_out():
    shares = find_lookalikes(make_ladder_videos(LABELS, fingerprint=("video", 3.0)))
    assert list(shares.index) == list(RUNGS.values()) and shares.iloc[0]["same video"] == 100
    np.testing.assert_allclose(shares.sum(axis=1), 100)
    for step in range(1, 5):
        assert (shares.iloc[step, :step] == 0).all()
    of_groups = find_lookalikes(make_ladder_videos(LABELS, fingerprint=("group", 3.0)))
    assert of_groups.loc["metadata patient", "same group"] > 50  # the other patients of its group
    assert of_groups.loc["conservative group", "elsewhere"] > 50


def test_an_interval_over_videos_is_narrower_than_one_over_groups_of_equal_videos():
    videos = make_ladder_videos(np.arange(24) % 3, videos=6)
    labels, groups = videos.labels, videos.units["group"].to_numpy()
    right = np.repeat(np.arange(24) % 2, 6).astype(bool)  # whole groups are right, or wrong
    probabilities = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    found = compare_intervals([HeldOut(labels, probabilities, groups)], videos, 500).set_index("drawn")
    assert list(found.index) == ["video", "metadata patient", "conservative group", "source"]
    assert set(found["mean"]) == {50} and found["units"].tolist() == [144, 72, 24, 6]
    assert found["width"]["conservative group"] > 1.8 * found["width"]["video"]


def test_the_line_above_the_table_says_how_many_videos_of_how_many(tmp_path):
    cohort = as_pocovid(make_small_cohort(tmp_path, simulated=False))
    study = as_study(prepare_cohort(cohort, TINY, protocol="cross"))
    line = describe_videos(take_diagnosis(study), study)
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
    step = falls.iloc[:3].assign(features=Kind.END_TO_END, ci_low=low, ci_high=high, rung="video", next_rung="group")
    sentence = describe_ladder(table, pd.concat([falls, step]))[5]
    assert sentence.startswith("End-to-end, from video to conservative group: balanced accuracy")
    assert verdict in sentence


def test_severity_is_told_across_and_within_sources():
    videos = make_ladder_videos(np.arange(12) // 6, n_sources=2)._replace(task=SEVERITY, classes=("0", "1-3"))
    decided = evaluate_splits(videos, Kind.PIXELS, ["video", "group"], repeats=2)[0] | decide_by_known_source(videos)
    table = measure_ladder(decided, videos, 50)
    assert set(table["metric"]) == {"zero_auc", "zero_auc_within_sources"}
    assert table["mean"].iloc[-1] == 50
    sentences = describe_severity(table, videos)
    assert "Severity 0 against 1-3, 48 videos: 2 of 2 sources have both, with 288 pairs" in sentences[0]
    assert len(sentences) == 3 and "within sources" in sentences[1]
    apart = videos._replace(units=videos.units.assign(source=videos.labels.astype(str)))
    decided = evaluate_splits(apart, Kind.PIXELS, ["video"], repeats=1)[0] | decide_by_known_source(apart)
    told = describe_severity(measure_ladder(decided, apart, 50), apart)
    assert "0 of 2 sources have both" in told[0] and "AUC of 100" in told[0] and "not defined within" in told[1]


# --- the cohort and our own network ---


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return as_pocovid(make_small_cohort(tmp_path_factory.mktemp("pocovid"), simulated=False))


def open_copy(cohort):
    """``open_videos`` where POCOVID is this cohort."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "load_cohort", lambda *_: cohort)
        patch.setattr(leakage, "find_profile", lambda _: TINY)
        return open_videos("tiny")


@pytest.fixture(scope="module")
def study(cohort):
    return open_copy(cohort)


def test_only_convex_videos_are_asked(study, cohort):
    videos = take_diagnosis(study)
    assert len(videos.labels) == len(cohort.table) - 1 and set(study.table["probe"]) == {"convex"}
    assert videos.classes == ("healthy", "COVID pneumonia", "interstitial lung disease")
    assert videos.pixels.shape == (39, FRAMES, 14 * 14) and 0 <= videos.pixels.min() <= videos.pixels.max() <= 1
    assert videos.files["width"].unique() == 32 and set(videos.files["container"]) == {".npy"}
    assert list(videos.units) == list(RUNGS)[1:] and set(videos.units["source"]) == set("0123")


def test_the_throwaway_ladder_is_the_same_whatever_the_profile(study):
    larger = replace(TINY, training=replace(TINY.training, image_size=64))
    other = as_study(prepare_cohort(study.cohort, larger, protocol="cross"))
    np.testing.assert_array_equal(take_diagnosis(study).pixels, take_diagnosis(other).pixels)


def test_severity_is_none_against_some_where_it_is_known(study):
    table = study.table.copy()
    table.loc[:4, "lung_severity"] = np.nan
    videos = take_severity(replace(study, cohort=replace(study.cohort, table=table)))
    assert videos.classes == ("0", "1-3") and len(videos.labels) == 34
    known = table["lung_severity"].iloc[videos.rows]
    np.testing.assert_array_equal(videos.labels, (known != "0").astype(int))
    without = replace(study.cohort, table=table.assign(lung_severity="0"))
    study.publish("leakage_severity", table)  # of a time when there were more videos
    with pytest.raises(NothingToDo, match="no two of these videos differ in it"):
        take_severity(replace(study, cohort=without))
    assert not list(study.folder.glob("leakage_severity.*"))


def test_the_library_refuses_the_leaky_split_unless_the_table_makes_a_false_claim(study):
    leaky = pretend_videos_are_patients(study)
    splits = leaky.splits(0)
    with pytest.raises(LeakageError, match="stands in"):
        check_no_leakage(study.table, splits)
    check_no_leakage(leaky.table, splits)  # it can only know what the table says
    check_no_leakage(study.table, study.splits(0))
    claimed, true = leaky.table, study.table
    assert (claimed["patient_id"] == claimed["video_id"]).all() and claimed["group_id"].is_unique
    unchanged = [column for column in true if column not in ("patient_id", "group_id")]
    pd.testing.assert_frame_equal(claimed[unchanged], true[unchanged])


def test_leaky_runs_are_other_runs_with_another_name(study):
    leaky = pretend_videos_are_patients(study)
    ids = [{spec.run_id for spec in each.specs(DISEASE)} for each in (study, leaky)]
    assert not ids[0] & ids[1]
    assert {spec.cohort for spec in leaky.specs(DISEASE)} == {"pocovid_split_by_video"}


def test_the_network_decides_every_video_once_while_it_was_held_out(study):
    runs = study.train(study.specs(DISEASE, initial_weights="scratch"))
    videos = take_diagnosis(study)
    ((key, [held_out]),) = decide_by_network(runs, study, "group", videos).items()
    decided = held_out.probabilities
    assert key == (Kind.END_TO_END, "group") and decided.shape == (39, 3)
    assert held_out.groups.tolist() == study.table["group_id"].tolist()
    np.testing.assert_allclose(decided.sum(axis=1), 1)
    for run in runs:
        rows = run.splits == "test"
        expected = run.probabilities[rows][:, :3]
        np.testing.assert_allclose(decided[rows], expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
    with pytest.raises(LusbioError, match="do not hold out every video once"):
        decide_by_network(runs[1:], study, "group", videos)
    shuffled = videos._replace(units=videos.units[::-1])
    with pytest.raises(LusbioError, match="about other videos"):
        decide_by_network(runs, study, "group", shuffled)


def test_without_pocovid_there_is_a_line_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    with pytest.raises(NothingToDo, match="^No ladder: it needs POCOVID.*`lusbio fetch pocovid`.*LUSBIO_DATA"):
        open_videos("smoke")


def test_a_copy_with_one_diagnosis_or_too_few_groups_is_a_line(cohort):
    with pytest.raises(NothingToDo, match="have one diagnosis"):
        open_copy(replace(cohort, table=cohort.table.assign(disease="healthy")))
    with pytest.raises(NothingToDo, match="needs at least 5 groups"):
        open_copy(replace(cohort, table=cohort.table.iloc[:6]))
