from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts import covid_blues
from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.inputs import BIOMARKERS, END_TO_END, Evidence
from lusbio.experts.other_cohort import CHOSEN, predict_cohort
from lusbio.experts.rows import NETWORK, Decisions, FoldResult, choose_by_validation
from lusbio.paper.generalization import DIFFERENCE
from lusbio.paper.leakage import FRAMES, PIXELS, SIZE
from lusbio.paper.real_patients import (
    ADAPTED,
    FINDINGS,
    FROM_SIMULATED,
    FROZEN,
    FUSED,
    METADATA,
    QUESTIONS,
    RATED_BITS,
    ask_questions,
    find_real_patients,
    fuse_biomarkers,
    list_real_patient_runs,
    take_adapted_biomarkers,
    take_frozen_biomarkers,
    take_metadata,
    take_mixed_biomarkers,
    take_pooled_pixels,
    take_rated_bits,
)
from lusbio.paper.real_patients_rows import (
    SHARED,
    Material,
    aggregate_patients,
    decide_finding,
    decide_floors,
    decide_task,
    leave_out,
    share_places,
)
from lusbio.paper.real_patients_tables import (
    EVERYBODY,
    FLOOR,
    LOOKED_AT,
    PAIRS,
    ROUTES,
    UNSEEN,
    count_answers,
    describe_differences,
    describe_pairs,
    make_findings_table,
    make_real_table,
    pick_shown,
    widen_real_table,
)
from lusbio.runs.mixed_cohort import MIXED, mix_cohorts
from lusbio.runs.spec import Run, load_run, prepare_cohort
from lusbio.runs.train import execute, execute_many
from lusbio.videos import decode_video
from lusbio.vocabulary import BIOMARKER_NAMES

NONES = [BIOMARKER_NAMES.index(question.column) for question in FINDINGS.values()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Real patients: five folds, two zones; patients are numbered, so that some have been looked at."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("real"), simulated=False)
    table = cohort.table.assign(
        patient_id=cohort.table["patient_id"].str[1:],
        group_id=cohort.table["group_id"].str[1:],
        zone=np.where(cohort.table["video_id"].str.endswith("0"), "L1", "R1"),
    )
    return ask_questions(prepare_cohort(replace(cohort, table=table, name="real"), TINY))[0]


@pytest.fixture(scope="module")
def convex(tmp_path_factory):
    """Simulated patients, in whom one more finding is known."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("convex"), patients=24)
    cohort.table[BIOMARKER_NAMES[2]] = (cohort.table["lung_severity"] > "1").astype(float)
    return prepare_cohort(replace(cohort, name="synthetic_convex"), TINY)


@pytest.fixture(scope="module")
def simulated(convex):
    return execute_many(convex.specs(BIOMARKER_TASK), convex)


@pytest.fixture(scope="module")
def mixed(prepared, convex):
    return mix_cohorts(prepared, convex)


def mixed_runs(mixed, folder) -> tuple[Run, ...]:
    """As ``made_up_runs``; the last biomarker is one that no training video decides."""
    runs = made_up_runs(mixed, folder / "mixed")
    return tuple(replace(run, info=run.info | {"masked": [BIOMARKER_NAMES[-1]]}) for run in runs)


def made_up_runs(prepared, folder, task=BIOMARKER_TASK, seed=0) -> tuple[Run, ...]:
    """One run per fold with random probabilities; what real patients have no labels for is masked."""
    runs, rng = [], np.random.default_rng(seed)
    for spec in prepared.specs(task, seed=seed):
        shape = len(prepared.cohort.table), len(spec.outputs)
        p = rng.random(shape) if task == BIOMARKER_TASK else rng.dirichlet(np.ones(shape[1]), shape[0])
        predictions = pd.DataFrame({"video_id": prepared.cohort.table["video_id"], "split": prepared.splits(spec.fold)})
        predictions[[f"p_{k}" for k in range(shape[1])]] = p
        known = task != BIOMARKER_TASK
        masked = [name for k, name in enumerate(spec.outputs) if not known and k not in NONES]
        info = {"masked": masked, "device": "CPU", "precision": "32-true"}
        folder_of_run = folder / f"{task}-{seed}-{spec.fold}"
        folder_of_run.mkdir(parents=True)
        runs.append(Run(folder_of_run, spec, info, predictions, rng.random((shape[0], 4)), minutes=1.0))
    return tuple(runs)


@pytest.fixture(scope="module")
def material(prepared, simulated, mixed, tmp_path_factory):
    """Everything but the runs of the simulated cohort is made up."""
    folder = tmp_path_factory.mktemp("runs")
    own = made_up_runs(prepared, folder)
    frozen = take_frozen_biomarkers(simulated, own, prepared)
    return Material(
        prepared=prepared,
        networks={task: made_up_runs(prepared, folder, task) for task in ("lung_severity", "sf_ratio")},
        own=own,
        from_simulated=made_up_runs(prepared, folder, "lung_severity", seed=1),
        frozen=frozen,
        adapted=take_adapted_biomarkers(made_up_runs(prepared, folder, seed=1), frozen),
        mixed=take_mixed_biomarkers(mixed_runs(mixed, folder), mixed, frozen),
        bits=take_rated_bits(own, prepared),
        floors=(take_pooled_pixels(own, prepared), take_metadata(own, prepared)),
    )


@pytest.fixture(scope="module")
def decided(material):
    tasks = ("lung_severity", "sf_at_most_430")
    return [row for task in tasks for row in decide_task(material, task, experts=["DT", "NN"])]


@pytest.fixture(scope="module")
def table(decided):
    return make_real_table(decided, 20)


@pytest.fixture(scope="module")
def found(material):
    return [row for finding in material.findings for row in decide_finding(material, finding)]


def row_of(rows, task, features, classifier) -> Decisions:
    (row,) = [row for row in rows if (row.task, row.features, row.classifier) == (task, features, classifier)]
    return row


# --- who is asked what ---


def test_questions_are_answered_like_a_plain_loop(prepared):
    for row in prepared.cohort.table.itertuples(index=False):
        answers = row._asdict() if "A-lines" in row._fields else dict(zip(prepared.cohort.table, row, strict=True))
        assert answers["sf_at_most_430"] == ("yes" if answers["sf_value"] <= 430 else "no")
        assert answers["covid"] == ("yes" if answers["disease"] == "COVID pneumonia" else "no")
        assert answers["A-lines"] == ("no" if answers["a_lines_none"] == 1 else "yes")
        assert answers["B-lines"] == ("no" if answers["b_lines_none"] == 1 else "yes")


def test_unknown_stays_unknown_and_what_cannot_be_asked_is_said(tmp_path):
    cohort = make_small_cohort(tmp_path, simulated=False)
    cohort.table["disease"] = np.nan
    cohort.table.loc[:1, ["sf_value", "sf_ratio"]] = np.nan
    asked, reasons = ask_questions(prepare_cohort(cohort, TINY))
    assert "covid" not in asked.cohort.table and len(reasons) == 1 and "COVID pneumonia" in reasons[0]
    assert asked.cohort.table["sf_at_most_430"].isna().sum() == 2


def test_finished_runs_stay_valid_when_questions_are_asked(prepared):
    columns = [*QUESTIONS, *FINDINGS]
    before = replace(prepared, cohort=replace(prepared.cohort, table=prepared.cohort.table.drop(columns=columns)))
    for task in (BIOMARKER_TASK, "lung_severity", "disease"):
        assert before.specs(task) == prepared.specs(task)


def test_answers_are_counted_by_video_and_patient(prepared):
    counts = count_answers(prepared)
    assert counts.loc[("COVID pneumonia", "yes")].tolist() == [14, 7]
    assert (counts.groupby("question")["videos"].sum() == 40).all()


@pytest.mark.parametrize("name", ["synthetic", "covid_blues"])
def test_without_real_patients_one_line_says_what_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    real, lines = find_real_patients(name, TINY)
    assert (
        real is None
        and len(lines) == 1
        and covid_blues.NAME.upper().replace("_", "-") in lines[0].upper().replace("_", "-")
    )


# --- runs ---


def test_each_fold_starts_from_a_simulated_run_counted_round(prepared, convex):
    ids = [spec.run_id for spec in convex.specs(BIOMARKER_TASK, "imagenet")]
    extra = list_real_patient_runs(prepared, convex, "imagenet")
    assert [spec.starts_from for spec in extra[ADAPTED]] == [ids[k] for k in (0, 1, 2, 0, 1)]
    assert [spec.starts_from for spec in extra[FROM_SIMULATED]] == [ids[k] for k in (0, 1, 2, 0, 1)]
    assert {spec.task for spec in extra[ADAPTED]} == {BIOMARKER_TASK}
    assert {spec.outputs for spec in extra[FROM_SIMULATED]} == {("0", "1", "2", "3")}


def test_an_adapted_network_goes_on_from_a_simulated_one_with_the_two_known_findings(prepared, convex, simulated):
    spec = list_real_patient_runs(prepared, convex, "scratch")[ADAPTED][1]
    run = load_run(execute(spec, prepared))
    assert simulated[1].folder.name in run.info["initial_weights"]
    assert [BIOMARKER_NAMES.index(name) for name in BIOMARKER_NAMES if name not in run.info["masked"]] == NONES


# --- what is decided from ---


def test_frozen_biomarkers_are_the_mean_over_the_simulated_networks(prepared, simulated, material):
    one_by_one = [predict_cohort(run, prepared, TINY.training.evaluation_clips) for run in simulated]
    learnt = ~np.isnan(one_by_one[0]).all(axis=0)
    assert np.flatnonzero(learnt).tolist() == [0, 2, 5]
    for values in material.frozen.values:
        np.testing.assert_allclose(values[:, learnt], sum(one_by_one)[:, learnt] / 3)
        assert (values[:, ~learnt] == 0.5).all()


def test_a_finding_that_one_network_did_not_learn_is_the_mean_of_the_others(prepared, simulated, material):
    unlearnt = replace(simulated[0], info=simulated[0].info | {"masked": list(BIOMARKER_NAMES)})
    unlearnt = replace(unlearnt, folder=simulated[0].folder.with_name("unlearnt"))
    path = unlearnt.folder / "elsewhere"
    path.mkdir(parents=True)
    name = f"{prepared.cohort.name}-{prepared.data}-{TINY.training.evaluation_clips}clips.csv"
    empty = pd.read_csv(simulated[0].folder / "elsewhere" / name, dtype={"video_id": str})
    empty[empty.columns[1:]] = np.nan
    empty.to_csv(path / name, index=False)
    given = take_frozen_biomarkers([unlearnt, *simulated[1:]], material.own, prepared).values[0]
    others = [predict_cohort(run, prepared, TINY.training.evaluation_clips)[:, 0] for run in simulated[1:]]
    np.testing.assert_allclose(given[:, 0], sum(others) / 2)


def test_labels_of_real_patients_do_not_touch_frozen_biomarkers(prepared, simulated, material):
    table = prepared.cohort.table.copy()
    table[list(BIOMARKER_NAMES)] = np.nan
    blind = replace(prepared, data="no-labels", cohort=replace(prepared.cohort, table=table))
    np.testing.assert_array_equal(
        take_frozen_biomarkers(simulated, material.own, blind).values[0], material.frozen.values[0]
    )


def test_adapted_biomarkers_keep_the_frozen_values_where_nothing_could_be_learnt(material):
    for run, values, frozen in zip(material.adapted.runs, material.adapted.values, material.frozen.values, strict=True):
        for k, name in enumerate(BIOMARKER_NAMES):
            kept = name in run.info["masked"]
            np.testing.assert_array_equal(values[:, k], frozen[:, k] if kept else run.probabilities[:, k])
    assert np.isfinite(material.adapted.values).all()


def test_mixed_biomarkers_are_those_of_the_real_patients(prepared, mixed, material, tmp_path):
    for run, kept, values in zip(mixed_runs(mixed, tmp_path), material.mixed.runs, material.mixed.values, strict=True):
        of_real = run.predictions[run.predictions["video_id"].str.startswith("real:")]
        assert of_real["video_id"].str.removeprefix("real:").tolist() == list(prepared.cohort.table["video_id"])
        np.testing.assert_array_equal(values[:, :-1], of_real.filter(like="p_").to_numpy()[:, :-1])
        np.testing.assert_array_equal(values[:, -1], material.frozen.values[0][:, -1])
        assert kept.splits.tolist() == prepared.splits(run.spec.fold).tolist()


def test_fused_biomarkers_are_both_side_by_side_and_their_mean_is_a_finding(material, found):
    fused = fuse_biomarkers(material.frozen, material.adapted)
    row = row_of(found, "B-lines", FUSED, NETWORK)
    bit = NONES[1]
    for k, values in enumerate(fused.values):
        np.testing.assert_array_equal(values[:, :38], material.frozen.values[k])
        np.testing.assert_array_equal(values[:, 38:], material.adapted.values[k])
        mean = (material.frozen.values[k][:, bit] + material.adapted.values[k][:, bit]) / 2
        np.testing.assert_allclose(row.folds[k].probabilities[:, 1], 1 - mean[row.folds[k].rows])


def test_the_raters_two_bits_do_not_give_severity_away(prepared, material):
    table = prepared.cohort.table.copy()
    others = [name for k, name in enumerate(BIOMARKER_NAMES) if k not in NONES]
    table[others] = 0.0
    table.loc[table["lung_severity"] > "1", others] = np.nan  # as labels of COVID-BLUES may do
    leaky = replace(prepared, cohort=replace(prepared.cohort, table=table))
    for values in take_rated_bits(material.own, leaky).values:
        np.testing.assert_array_equal(values, prepared.cohort.table[["a_lines_none", "b_lines_none"]])


def test_pooled_pixels_are_the_mean_frame_of_the_file(prepared, material):
    values = material.floors[0].values[0]
    assert values.shape == (40, SIZE**2)
    for k in (0, 17):
        frames = decode_video(prepared.cohort.video_paths()[k], SIZE)
        chosen = [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
        np.testing.assert_allclose(values[k], np.mean(chosen, axis=0).ravel() / 255)


def test_metadata_are_zones_and_numbers_and_nothing_that_somebody_said(prepared, material):
    values = material.floors[1].values[0]
    assert values.shape == (40, 5)
    np.testing.assert_array_equal(values[:, 0], prepared.cohort.table["zone"] == "L1")
    assert (values[:, 2:4] == -1).all() and (values[:, 4] == 6).all()
    table = prepared.cohort.table.copy()
    table[["lung_severity", "sf_ratio", "sf_value", "disease", *BIOMARKER_NAMES]] = np.nan
    blind = replace(prepared, cohort=replace(prepared.cohort, table=table))
    np.testing.assert_array_equal(take_metadata(material.own, blind).values[0], values)


# --- decisions ---


def test_networks_without_a_task_of_their_own_leave_its_question_out(material):
    assert material.tasks == ["lung_severity", "sf_ratio", "sf_at_most_430"]
    assert material.findings == ["A-lines", "B-lines"]


def test_a_question_is_answered_by_the_classes_that_mean_yes(material, decided):
    row = row_of(decided, "sf_at_most_430", END_TO_END, NETWORK)
    for run, fold in zip(material.networks["sf_ratio"], row.folds, strict=True):
        np.testing.assert_allclose(fold.probabilities[:, 1], 1 - run.probabilities[fold.rows, 0])
        np.testing.assert_array_equal(fold.labels, material.prepared.cohort.table["sf_value"][fold.rows] <= 430)


def test_every_patient_is_tested_once_in_every_row(decided, found):
    for row in [*decided, *found]:
        assert sorted(np.concatenate([fold.rows for fold in row.folds])) == list(range(40))


def test_test_labels_have_no_say_in_any_floor(material):
    task, table = "sf_at_most_430", material.prepared.cohort.table.copy()
    before = decide_floors(material, task)
    tested = (material.prepared.splits(0) == "test").to_numpy()
    table.loc[tested, task] = np.where(table.loc[tested, task] == "yes", "no", "yes")
    other = replace(
        material, prepared=replace(material.prepared, cohort=replace(material.prepared.cohort, table=table))
    )
    for one, two in zip(before, decide_floors(other, task), strict=True):
        np.testing.assert_array_equal(one.folds[0].probabilities, two.folds[0].probabilities)
        assert not np.array_equal(one.folds[0].labels, two.folds[0].labels)


def test_pixels_find_what_is_brightness(material):
    rows = decide_floors(material, "sf_at_most_430")
    assert [row.classifier for row in rows] == 2 * ["LR", "RF", CHOSEN]
    for floor in FLOOR:
        assert np.mean([fold.accuracy for fold in row_of(rows, "sf_at_most_430", *floor).folds]) > 0.9


def test_of_experts_the_one_that_validated_best_is_shown(decided):
    for features in (END_TO_END, BIOMARKERS, FROZEN, ADAPTED, FUSED, MIXED):
        experts = [row for row in decided if (row.task, row.features) == ("lung_severity", features)]
        chosen = row_of(experts, "lung_severity", features, CHOSEN)
        best = choose_by_validation([row for row in experts if row.classifier not in (NETWORK, CHOSEN)])
        for one, two in zip(chosen.folds, best.folds, strict=True):
            np.testing.assert_array_equal(one.probabilities, two.probabilities)


def test_a_finding_is_seen_where_it_is_not_none(material, found):
    for features, evidence in zip(
        (FROZEN, ADAPTED, MIXED), (material.frozen, material.adapted, material.mixed), strict=True
    ):
        for finding, bit in zip(FINDINGS, NONES, strict=True):
            for k, fold in enumerate(row_of(found, finding, features, NETWORK).folds):
                np.testing.assert_allclose(fold.probabilities[:, 1], 1 - evidence.values[k][fold.rows, bit])
                none = material.prepared.cohort.table[BIOMARKER_NAMES[bit]].to_numpy()[fold.rows]
                np.testing.assert_array_equal(fold.labels, 1 - none)


def test_a_patient_is_the_mean_over_the_patients_videos():
    rng = np.random.default_rng(0)
    groups = rng.choice(list("abcdefgh"), 30)
    labels = np.array([ord(group) % 2 for group in groups])
    fold = FoldResult(np.arange(100, 130), labels, rng.dirichlet(np.ones(2), 30), groups)
    row = Decisions("f", "c", "t", (fold,), (fold,), 0.0, ("no", "yes"))
    (result,) = aggregate_patients(row).folds
    assert sorted(result.groups) == sorted(set(groups))
    for k, patient in enumerate(result.groups):
        videos = [i for i in range(30) if groups[i] == patient]
        mean = sum(fold.probabilities[i] for i in videos) / len(videos)
        np.testing.assert_allclose(result.probabilities[k], mean)
        assert result.labels[k] == labels[videos[0]] and result.rows[k] == 100 + videos[0]


def test_videos_that_are_told_apart_by_nothing_make_patients_that_are_not():
    groups = np.array(list("abbcccddddeeeeeffffff"))
    labels = np.array([ord(group) % 2 for group in groups])
    fold = FoldResult(np.arange(21), labels, np.full((21, 2), [0.1 + 0.6, 0.3]), groups)
    (result,) = aggregate_patients(Decisions("f", "c", "t", (fold,), (), 0.0, ("no", "yes"))).folds
    assert len(np.unique(result.probabilities, axis=0)) == 1


def test_other_places_of_a_patient_count_as_much_as_the_video_itself():
    rng = np.random.default_rng(0)
    groups = rng.choice(list("abcd"), 20)
    fold = FoldResult(np.arange(20), rng.integers(0, 4, 20), rng.dirichlet(np.ones(4), 20), groups)
    row = share_places(Decisions("f", "c", "t", (fold,), (fold,), 0.0, tuple("0123")))
    assert row.features == "f_all_places"
    for k in range(20):
        mean = np.mean([fold.probabilities[j] for j in range(20) if groups[j] == groups[k]], axis=0)
        np.testing.assert_allclose(row.folds[0].probabilities[k], (fold.probabilities[k] + mean) / 2)
    np.testing.assert_array_equal(row.folds[0].labels, fold.labels)


def test_places_are_shared_for_severity_alone(decided):
    heeded = [(row.task, row.features) for row in decided if row.features.endswith("_all_places")]
    assert set(heeded) == {("lung_severity", f"{name}_all_places") for name, _ in SHARED}
    assert len(heeded) == len(SHARED)


def test_what_differs_within_a_patient_is_not_about_patients():
    fold = FoldResult(np.arange(2), np.array([0, 1]), np.full((2, 2), 0.5), np.array(["a", "a"]))
    with pytest.raises(LusbioError, match="different labels"):
        aggregate_patients(Decisions("f", "c", "t", (fold,), (), 0.0, ("no", "yes")))


def test_patients_can_be_left_out(decided):
    row = decided[0]
    fewer = leave_out(row, ["3", "4"])
    groups = np.concatenate([fold.groups for fold in fewer.folds])
    assert set(groups) == {str(k) for k in range(20)} - {"3", "4"} and len(groups) == 36
    assert leave_out(row, [str(k) for k in range(20)]).folds == ()


# --- tables ---


def test_the_table_has_every_row_and_patients_where_a_task_is_about_them(decided, table):
    units = table.groupby("task", sort=False)["unit"].unique().map(list).to_dict()
    assert units == {"lung_severity": ["video"], "sf_at_most_430": ["video", "patient"]}
    of_severity = [row for row in decided if row.task == "lung_severity"]
    assert (table["task"] == "lung_severity").sum() == 2 * (len(of_severity) + len(PAIRS))
    names = {row.features for row in of_severity}
    assert names >= {
        END_TO_END,
        BIOMARKERS,
        FROZEN,
        ADAPTED,
        FUSED,
        MIXED,
        FROM_SIMULATED,
        RATED_BITS,
        PIXELS,
        METADATA,
    }


def test_differences_are_to_the_better_floor_and_pixels_have_none(table):
    key, pixels = ["task", "unit", "metric"], table["features"] == PIXELS
    best = table[pixels & (table["classifier"] != CHOSEN)].groupby(key)["mean"].max().rename("best")
    expected = table["mean"] - table[key].merge(best, "left", key)["best"]
    single = table["classifier"].isin(["DT", "NN"])
    none = pixels | single | (table["features"] == DIFFERENCE)
    table = table.assign(**dict.fromkeys(["p_value", "p_holm"], table["p_value"].where(~none | pixels | single)))
    np.testing.assert_allclose(expected[~none], table["over_floor"][~none], atol=1e-9)
    assert table.loc[none, ["over_floor", "over_low", "over_high", "p_value", "p_holm"]].isna().all(axis=None)


def test_being_above_takes_both_floors(material, decided):
    """A route that equals one floor has no p-value below 1, however far it is above the other."""
    rows = [row for row in decided if row.task == "lung_severity"]
    one = row_of(rows, "lung_severity", PIXELS, "LR")
    worse = replace(row_of(rows, "lung_severity", "majority", "—"), features=PIXELS, classifier="RF")
    kept = [row for row in rows if row.features not in (PIXELS, END_TO_END)]
    table = make_real_table([replace(one, features=END_TO_END, classifier=NETWORK), one, worse, *kept], 20)
    cells = table[table["features"] == END_TO_END]
    assert (cells["over_floor"] == 0).all() and (cells["p_value"] == 1).all()


def test_only_routes_that_are_shown_are_corrected(table):
    tested = table[table["features"] != DIFFERENCE].dropna(subset=["p_holm"])
    assert set(tested["features"]) == set(ROUTES) and set(tested["classifier"]) == {NETWORK, CHOSEN}
    assert (tested["p_holm"] >= tested["p_value"]).all()


def test_pairs_are_differences_of_the_rows_that_are_shown(table):
    cells = table.set_index(["task", "unit", "metric", "features", "classifier"])["mean"].sort_index()
    pairs = table[table["features"] == DIFFERENCE]
    assert set(pairs["classifier"]) == {f"{first} minus {second}" for first, second in PAIRS}
    for row in pairs.itertuples():
        first, second = row.classifier.split(" minus ")
        kinds = [NETWORK if features == END_TO_END else CHOSEN for features in (first, second)]
        means = [cells[row.task, row.unit, row.metric, f, k] for f, k in zip((first, second), kinds, strict=True)]
        assert row.mean == pytest.approx(means[0] - means[1], abs=1e-9)
        assert row.ci_low <= row.ci_high and row.p_holm >= row.p_value


def test_pairs_of_findings_are_of_networks(found):
    findings = make_findings_table(found, 20)
    pairs = findings[findings["features"] == DIFFERENCE]
    assert set(pairs["classifier"]) == {f"{MIXED} minus {ADAPTED}"} and len(pairs) == 4
    mean = findings.set_index(["task", "patients", "features"])["mean"]
    for row in pairs.itertuples():
        at = row.task, row.patients
        assert row.mean == pytest.approx(mean[*at, MIXED] - mean[*at, ADAPTED])


def test_sentences_about_pairs_say_what_excludes_zero_and_what_survives_correction(table):
    shown = pick_shown(table)
    pairs = (shown["features"] == DIFFERENCE) & (shown["task"] == "lung_severity") & (shown["metric"] == "auc")
    none = shown.assign(ci_low=-1.0, ci_high=1.0, p_holm=1.0)
    assert all(sentence.endswith("no interval excludes 0.") for sentence in describe_pairs(none))
    one = pairs & (shown["classifier"] == f"{MIXED} minus {ADAPTED}")
    clear = none.assign(ci_low=none["ci_low"].where(~one, 0.5))
    sentence = describe_pairs(clear)[0]
    assert "excludes 0: mixed training minus adapted (after Holm's correction: none)" in sentence
    after = clear.assign(p_holm=clear["p_holm"].where(~one, 0.01))
    assert "correction: mixed training minus adapted)" in describe_pairs(after)[0]


def test_auc_of_patients_is_that_of_mean_probabilities(decided, table):
    row = row_of(decided, "sf_at_most_430", FROZEN, CHOSEN)
    aucs = []
    for fold in row.folds:
        patients = pd.DataFrame({"label": fold.labels, "p": fold.probabilities[:, 1]}).groupby(fold.groups).mean()
        if patients["label"].nunique() == 2:
            aucs.append(roc_auc_score(patients["label"], patients["p"]))
    cell = table.query("task == 'sf_at_most_430' and unit == 'patient' and metric == 'auc'")
    cell = cell[(cell["features"] == FROZEN) & (cell["classifier"] == CHOSEN)]
    assert cell["mean"].item() == pytest.approx(100 * np.mean(aucs))


def test_findings_are_measured_without_those_who_were_looked_at_too(found):
    findings = make_findings_table(found, 20)
    counts = findings.groupby("patients")["n_patients"].unique().map(list).to_dict()
    looked_at = set(LOOKED_AT) & {str(k) for k in range(20)}
    assert counts == {EVERYBODY: [20], UNSEEN: [20 - len(looked_at)]} and set(findings["metric"]) == {"auc"}
    row = leave_out(row_of(found, "B-lines", FROZEN, NETWORK), LOOKED_AT)
    assert 0 < sum(len(fold.rows) for fold in row.folds) < 40
    some = (findings["patients"] == UNSEEN) & (findings["features"] == FROZEN) & (findings["task"] == "B-lines")
    aucs = [roc_auc_score(f.labels, f.probabilities[:, 1]) for f in row.folds if len(set(f.labels.tolist())) == 2]
    assert findings.loc[some, "mean"].item() == pytest.approx(100 * np.mean(aucs))


def test_tables_are_readable(table, found):
    shown = pick_shown(table)
    wide = widen_real_table(shown)
    assert not wide.isna().any(axis=None) and not wide["features"].str.contains("_").any()
    assert len(wide) == len(wide.drop_duplicates(["features", "classifier"]))
    assert "S/F at most 430 (patients), AUC" in wide and "Lung severity, Accuracy" in wide
    findings = widen_real_table(pick_shown(make_findings_table(found, 20)), by=["patients", "n_patients"])
    assert list(findings.columns[:4]) == ["patients", "n_patients", "features", "classifier"]
    sentences = describe_differences(shown)
    assert len(sentences) == 2 and all("floor" in sentence for sentence in sentences)


def test_evidence_of_the_floors_follows_the_same_runs(material):
    for evidence in (*material.floors, material.bits, material.frozen):
        assert isinstance(evidence, Evidence) and evidence.runs == material.own
    assert encode_task(material.prepared.cohort.table, "A-lines").min() == 0
