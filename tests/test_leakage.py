import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts.splits import check_no_leakage
from lusbio.errors import LeakageError, LusbioError
from lusbio.experts.inputs import END_TO_END, MAJORITY
from lusbio.paper import leakage
from lusbio.paper.generalization import SOURCE_ONLY
from lusbio.paper.leakage import (
    DIAGNOSIS,
    FILES,
    FRAMES,
    PIXELS,
    RUNGS,
    RUNGS_OF,
    SOURCE,
    Material,
    ask_diagnosis,
    ask_severity,
    climb,
    cross_validate,
    deal_folds,
    decide_by_frequency,
    decide_by_known_source,
    decide_by_network,
    find_units,
    find_videos,
    make_throwaway_model,
    pretend_videos_are_patients,
)
from lusbio.profiles import PROFILES
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.train import execute_many


def make_material(labels_of_group, *, videos=4, signal=0.0, fingerprint=("group", 2.0), n_sources=6, seed=0):
    """Videos whose frames show, each as its own pattern, the class (``signal``) and one of the units."""
    rng = np.random.default_rng(seed)
    n_groups = len(labels_of_group)
    group = np.repeat(np.arange(n_groups), videos)
    labels = np.asarray(labels_of_group)[group]
    units = pd.DataFrame(
        {
            "video": [f"v{k}" for k in range(len(group))],
            "patient": [f"p{k // 2}" for k in range(len(group))],
            "group": [f"{g % n_sources}-g{g}" for g in group],
            "source": [str(g % n_sources) for g in group],
        }
    )
    unit, strength = fingerprint
    owner = pd.factorize(units[unit])[0]
    patterns, classes = rng.normal(size=(owner.max() + 1, 196)), rng.normal(size=(labels.max() + 1, 196))
    video = strength * patterns[owner] + signal * classes[labels]
    pixels = video[:, None] + rng.normal(size=(len(group), FRAMES, 196))
    files = pd.DataFrame({"width": 100.0 + 10 * labels, "height": 100.0, "fps": np.nan, "frames": 30.0})
    files["container"] = np.where(labels == 0, ".avi", ".mp4")
    names = tuple(f"class {k}" for k in range(labels.max() + 1))
    return Material(DIAGNOSIS, np.arange(len(group)), labels, names, pixels, files, units)


def accuracy_by_rung(material, features=PIXELS, rungs=(), repeats=3):
    decided, reasons = climb(material, features, rungs, repeats)
    assert reasons == []
    return {
        rung: np.mean([np.mean(p.argmax(1) == labels) for labels, p, _ in tested])
        for (_, rung), tested in decided.items()
    }


def test_a_fingerprint_of_the_patient_scores_high_where_it_leaks_and_chance_where_it_does_not():
    labels = np.random.default_rng(1).permutation(np.arange(24) % 3)  # the class says nothing about the pictures
    found = accuracy_by_rung(make_material(labels))
    assert min(found["frame"], found["video"], found["patient"]) > 0.9
    assert max(found["group"], found["source"]) < 0.5


def test_a_fingerprint_of_the_source_leaks_until_sources_are_held_out():
    labels = np.arange(24) % 6 % 3  # every source has one class
    found = accuracy_by_rung(make_material(labels, fingerprint=("source", 2.0)))
    assert min(found["frame"], found["video"], found["group"]) > 0.9
    assert found["source"] < 0.5


def test_what_is_really_there_survives_every_rung():
    labels = np.random.default_rng(1).permutation(np.arange(24) % 3)
    found = accuracy_by_rung(make_material(labels, signal=2.0, fingerprint=("group", 0.2)))
    assert list(found) == list(RUNGS) and min(found.values()) > 0.9


@pytest.mark.parametrize("rung", RUNGS)
def test_no_rung_tears_its_unit_apart_and_every_frame_is_held_out_once(rung):
    material = make_material(np.arange(12) % 3)
    units = find_units(material, rung)
    for folds in deal_folds(rung, repeats=2):
        held_out = np.zeros(len(units), dtype=int)
        for train, test in folds.split(units, groups=units):
            assert not set(units[train]) & set(units[test])
            held_out[test] += 1
        assert (held_out == 1).all()


def test_a_stricter_rung_keeps_everything_together_that_a_looser_one_does():
    material = make_material(np.arange(12) % 3)
    finer = [find_units(material, rung) for rung in RUNGS]
    for fine, coarse in zip(finer, finer[1:], strict=False):
        assert pd.Series(coarse).groupby(fine).nunique().max() == 1


def test_a_class_that_lives_in_one_group_cannot_be_found_when_that_group_is_held_out():
    labels = np.array([0, 1] * 8 + [2])
    material = make_material(labels, signal=3.0, fingerprint=("group", 0.1))
    lonely = material.labels == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        honest, leaky = (cross_validate(material, PIXELS, rung, repeats=2) for rung in ("group", "video"))
    for probabilities in honest:
        assert probabilities.shape == (len(material.labels), FRAMES, 3)
        assert (probabilities[lonely, :, 2] == 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=2), 1)
    assert all((p[lonely].mean(axis=1).argmax(1) == 2).all() for p in leaky)


def test_a_student_can_add_a_rung():
    material = make_material(np.random.default_rng(1).permutation(np.arange(24) % 3))
    material.units["hospital"] = material.units["group"]
    assert accuracy_by_rung(material, rungs=["hospital"])["hospital"] < 0.5


def test_too_few_groups_are_a_line_and_no_error():
    decided, reasons = climb(make_material([0, 1, 2]), PIXELS, repeats=1)
    assert [rung for _, rung in decided] == ["frame", "video", "patient", "source"]
    assert reasons == ["pooled pixels, split by conservative group: there are 3, at least 5 are needed"]


def test_a_training_part_with_one_class_is_a_line_and_no_error():
    material = make_material([0, 0, 0, 0, 0, 1])
    decided, reasons = climb(material, PIXELS, ["group"], repeats=1)
    assert not decided and "a single class is left" in reasons[0]


def test_files_and_sources_decide_without_a_picture():
    material = make_material(np.arange(24) % 3, fingerprint=("group", 0.0), n_sources=6)
    files, source = (accuracy_by_rung(material, features) for features in (FILES, SOURCE))
    assert min(files.values()) == 1 and tuple(files) == RUNGS_OF[FILES]
    assert min(source.values()) == 1 and tuple(source) == ("video", "patient", "group")
    with pytest.raises(ValueError, match="pooled_pixels, file_metadata, source_id"):
        make_throwaway_model("names")


def test_decisions_are_the_same_again_and_differ_between_deals():
    material = make_material(np.arange(12) % 3, signal=0.3)
    first, again = (cross_validate(material, PIXELS, "group", repeats=2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 0


def test_anchors_are_class_frequencies_of_everybody_and_of_the_source():
    material = make_material([0, 0, 1, 1], n_sources=2)
    (((labels, everybody, groups),),) = decide_by_frequency(material).values()
    np.testing.assert_array_equal(everybody, 0.5)
    assert labels is material.labels and groups.tolist() == material.units["group"].tolist()
    (((_, of_source, _),),) = decide_by_known_source(material).values()
    np.testing.assert_array_equal(of_source, 0.5)
    apart = decide_by_known_source(make_material([0, 1, 0, 1], n_sources=2))[SOURCE_ONLY, "—"][0][1]
    assert (apart.argmax(1) == make_material([0, 1, 0, 1]).labels).all()
    assert list(decide_by_frequency(material)) == [(MAJORITY, "—")]


# --- the cohort and our own network ---


def as_pocovid(cohort, name="pocovid"):
    """The cohort with sources, conservative groups of two patients, and one video of the other probe."""
    patient = cohort.table["patient_id"].str[1:].astype(int)
    group = [f"{k // 2 % 4}-g{k // 2}" for k in patient]
    table = cohort.table.assign(group_id=group, probe=["linear"] + ["convex"] * (len(patient) - 1))
    return replace(cohort, table=table, name=name, simulated=False, notes=("40 of 131 videos present",))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return as_pocovid(make_small_cohort(tmp_path_factory.mktemp("pocovid"), simulated=False))


@pytest.fixture(scope="module")
def prepared(cohort):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "load_cohort", lambda *_: cohort)
        found, missing = find_videos(TINY)
    assert missing == ""
    return found


def test_only_convex_videos_are_asked(prepared, cohort):
    material = ask_diagnosis(prepared)
    assert len(material.labels) == len(cohort.table) - 1 and set(prepared.cohort.table["probe"]) == {"convex"}
    assert material.classes == ("healthy", "COVID pneumonia", "interstitial lung disease")
    assert material.pixels.shape == (39, FRAMES, 14 * 14) and 0 <= material.pixels.min() <= material.pixels.max() <= 1
    assert material.files["width"].unique() == 32 and set(material.files["container"]) == {".npy"}
    assert list(material.units) == list(RUNGS)[1:] and set(material.units["source"]) == set("0123")


def test_the_throwaway_ladder_is_the_same_whatever_the_profile(prepared):
    larger = replace(TINY, training=replace(TINY.training, image_size=64))
    other = prepare_cohort(prepared.cohort, larger, protocol="cross")
    np.testing.assert_array_equal(ask_diagnosis(prepared).pixels, ask_diagnosis(other).pixels)


def test_severity_is_none_against_some_where_it_is_known(prepared):
    table = prepared.cohort.table.copy()
    table.loc[:4, "lung_severity"] = np.nan
    material = ask_severity(replace(prepared, cohort=replace(prepared.cohort, table=table)))
    assert material.classes == ("0", "1-3") and len(material.labels) == 34
    known = table["lung_severity"].iloc[material.rows]
    np.testing.assert_array_equal(material.labels, (known != "0").astype(int))
    without = replace(prepared.cohort, table=table.assign(lung_severity="0"))
    assert ask_severity(replace(prepared, cohort=without)) is None


def test_the_library_refuses_the_leaky_split_unless_the_table_makes_a_false_claim(prepared):
    leaky = pretend_videos_are_patients(prepared)
    splits = leaky.splits(0)
    with pytest.raises(LeakageError, match="stands in"):
        check_no_leakage(prepared.cohort.table, splits)
    check_no_leakage(leaky.cohort.table, splits)  # it can only know what the table says
    check_no_leakage(prepared.cohort.table, prepared.splits(0))
    claimed, true = leaky.cohort.table, prepared.cohort.table
    assert (claimed["patient_id"] == claimed["video_id"]).all() and claimed["group_id"].is_unique
    unchanged = [column for column in true if column not in ("patient_id", "group_id")]
    pd.testing.assert_frame_equal(claimed[unchanged], true[unchanged])


def test_leaky_runs_are_other_runs_with_another_name(prepared):
    leaky = pretend_videos_are_patients(prepared)
    ids = [{spec.run_id for spec in each.specs(DIAGNOSIS)} for each in (prepared, leaky)]
    assert not ids[0] & ids[1]
    assert {spec.cohort for spec in leaky.specs(DIAGNOSIS)} == {"pocovid_split_by_video"}


def test_the_network_decides_every_video_once_while_it_was_held_out(prepared):
    runs = execute_many(prepared.specs(DIAGNOSIS), prepared)
    material = ask_diagnosis(prepared)
    (((key, [(labels, decided, groups)]),)) = decide_by_network(runs, prepared, "group", material).items()
    assert key == (END_TO_END, "group") and decided.shape == (39, 3)
    assert groups.tolist() == prepared.cohort.table["group_id"].tolist()
    np.testing.assert_allclose(decided.sum(axis=1), 1)
    for run in runs:
        rows = run.splits == "test"
        expected = run.probabilities[rows][:, :3]
        np.testing.assert_allclose(decided[rows], expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
    with pytest.raises(LusbioError, match="do not hold out every video once"):
        decide_by_network(runs[1:], prepared, "group", material)
    shuffled = replace(material, units=material.units[::-1])
    with pytest.raises(LusbioError, match="about other videos"):
        decide_by_network(runs, prepared, "group", shuffled)


def test_without_pocovid_there_is_a_line_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    nothing, missing = find_videos(PROFILES["smoke"])
    assert nothing is None and missing.startswith("No ladder: it needs POCOVID.")
    assert "`lusbio fetch pocovid`" in missing and "LUSBIO_DATA" in missing


def test_a_copy_with_one_diagnosis_or_too_few_groups_is_a_line(cohort, monkeypatch):
    alike = replace(cohort, table=cohort.table.assign(disease="healthy"))
    monkeypatch.setattr(leakage, "load_cohort", lambda *_: alike)
    assert "have one diagnosis" in find_videos(TINY)[1]
    few = replace(cohort, table=cohort.table.iloc[:6])
    monkeypatch.setattr(leakage, "load_cohort", lambda *_: few)
    assert "needs at least 5 groups" in find_videos(TINY)[1]
