"""The door that notebooks come in by: what a study publishes, removes, opens, and where a notebook ends."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from helpers import TINY, made_up_run, make_small_cohort, silent, small_study

from lusbio.cohorts.table import write_table
from lusbio.errors import CohortError, LusbioError, NothingToDo
from lusbio.experts.table1 import decide_both_ways
from lusbio.files import Table, build_folder
from lusbio.runs import study as door
from lusbio.runs.plan import EXTRAS, list_grid
from lusbio.runs.study import Study, open_study
from lusbio.vocabulary import ARTEFACTS, BIOMARKER_NAMES, BIOMARKER_TASK, DISEASE, SEVERITY, SF_RATIO, Artefact

CELLS = pd.DataFrame({"metric": ["auc", "f1"], "mean": [81.23456789012, float("nan")]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def study(whole, tmp_path, monkeypatch) -> Study:
    """With folders for results of its own."""
    monkeypatch.setenv("LUSBIO_FIGURES", str(tmp_path / "figures"))
    return whole


@pytest.fixture
def real(study) -> Study:
    return replace(study, cohort=replace(study.cohort, simulated=False))


def draw():
    figure, ax = plt.subplots()
    ax.plot([1, 2], [3, 4])
    plt.close(figure)
    return figure


def written(study: Study) -> list[str]:
    return sorted(path.name for path in study.folder.iterdir()) if study.folder.exists() else []


def test_a_study_knows_its_tasks_and_what_cannot_be_learnt(study):
    assert study.tasks == [SEVERITY, SF_RATIO, DISEASE] and study.unlearnable == {}
    bare = replace(study, cohort=replace(study.cohort, table=study.table.assign(disease=None)))
    assert bare.tasks == [SEVERITY, SF_RATIO] and "fewer than two classes" in bare.unlearnable[DISEASE]
    assert study.draws == TINY.bootstrap_draws and study.left_out == {}
    assert study.folder.parts[-2:] == ("tiny", "small")


def test_a_task_of_ones_own_leaves_a_study(study):
    answers = study.table[SEVERITY].map({"0": "no"}).fillna("yes")
    mine = study.with_task("severe", ("no", "yes"), answers)
    assert isinstance(mine, Study) and mine.jobs == study.jobs and "severe" in mine.table


def test_a_task_by_name_is_trained_in_all_its_folds_and_read_back(study):
    runs = study.train(DISEASE, say=silent)
    assert [run.spec.fold for run in runs] == [0, 1, 2] and [run.spec for run in runs] == study.specs(DISEASE)
    assert [run.folder for run in study.runs(DISEASE)] == [run.folder for run in runs]


def test_a_table_is_written_for_programs_and_for_people(study, tmp_path, monkeypatch):
    monkeypatch.setitem(ARTEFACTS, "table0", Artefact(title="A title", note="What always stands below."))
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    shown = study.publish("table0", Table(CELLS, note="What stands below this time.", runs=(run,)))
    text = (study.folder / "table0.md").read_text(encoding="utf-8")
    origin = study.origin([run])
    assert "**Simulated** patients" in origin and "CPU (32-true)" in origin
    assert text.split("\n\n") == [
        "# A title",
        origin,
        "| metric | mean |\n| --- | --- |\n| auc | 81.2 |\n| f1 | — |",
        "What always stands below.",
        "What stands below this time.\n",
    ]
    assert shown == text.replace("# A title", "### A title") == shown._repr_markdown_()
    assert (study.folder / "table0.csv").read_text() == "metric,mean\nauc,81.2345679\nf1,\n"
    assert written(study) == ["table0.csv", "table0.md"]


def test_people_may_be_shown_less_than_programs_read_and_another_origin(study):
    table = Table(CELLS, shown=CELLS[["metric"]], origin="Counted by hand.")
    text = study.publish("my_own_table", table)
    assert text == "### My own table\n\nCounted by hand.\n\n| metric |\n| --- |\n| auc |\n| f1 |\n"
    assert pd.read_csv(study.folder / "my_own_table.csv").columns.tolist() == ["metric", "mean"]
    assert "| auc | 81.2 |" in study.publish("bare", CELLS)


def test_a_figure_is_written_as_picture_and_print_with_the_same_bytes_each_time(study):
    assert study.publish("fig0", draw()) is None
    first = {name: (study.folder / name).read_bytes() for name in written(study)}
    study.publish("fig0", draw())
    assert list(first) == ["fig0.pdf", "fig0.png"]
    assert {name: (study.folder / name).read_bytes() for name in written(study)} == first


def test_frames_of_real_patients_stay_in_the_build_folder(study, real):
    frames = build_folder("tiny", "small", "frames")
    real.publish("fig_frames", draw(), real_frames=True)
    assert written(real) == [] and sorted(path.suffix for path in frames.iterdir()) == [".pdf", ".png"]
    real.publish("fig_numbers", draw())
    study.publish("fig_simulated", draw())
    assert {name.split(".")[0] for name in written(study)} == {"fig_numbers", "fig_simulated"}
    assert {path.stem for path in frames.iterdir()} == {"fig_frames"}


def test_what_cannot_be_made_any_more_is_removed(study):
    for name in ("table1", "table10"):
        study.publish(name, CELLS)
    study.publish("table1", draw())
    study.remove("table1", "never_made")
    assert written(study) == ["table10.csv", "table10.md"]


def test_a_notebook_ends_with_one_line_and_without_stale_results(study):
    study.publish("table6", CELLS)
    study.publish("table1", CELLS)
    with pytest.raises(NothingToDo) as caught:
        study.end_here("Nobody asked for Table 6.", "table6")
    assert isinstance(caught.value, LusbioError) and written(study) == ["table1.csv", "table1.md"]
    assert caught.value._render_traceback_() == ["Nobody asked for Table 6."]


def test_runs_of_what_cannot_be_learnt_end_the_notebook(study, monkeypatch):
    bare = study.table.assign(**dict.fromkeys(BIOMARKER_NAMES, 0.0))  # never present: there is nothing to tell apart
    bare = replace(study, cohort=replace(study.cohort, table=bare, simulated=False))
    ends = (lambda: bare.runs(BIOMARKER_TASK), lambda: list_grid(bare), lambda: decide_both_ways(SEVERITY, bare))
    for end in ends:
        with pytest.raises(NothingToDo, match="'small'.*no train video has a label for biomarkers"):
            end()
    paper = replace(bare, profile=replace(TINY, name="paper"))
    assert all("teach none" in reason for reason in paper.left_out.values()) and list(paper.left_out) == list(EXTRAS)
    monkeypatch.setattr(door, "load_cohort", lambda name, settings, jobs: bare.cohort)
    said = []
    with pytest.raises(NothingToDo, match="cannot teach biomarkers"):
        door.find_or_train("small", "smoke", say=said.append)
    assert said == []


def test_another_cohort_is_opened_at_the_same_size_or_the_notebook_ends(study, tmp_path, monkeypatch):
    asked = []

    def note(profile: str, cohort: str, jobs: int) -> Study:
        asked.append((profile, cohort, jobs))
        return study

    with monkeypatch.context() as patch:
        patch.setattr(door, "open_study", note)
        assert replace(study, jobs=2).open_other("pocovid") is study and asked == [("tiny", "pocovid", 2)]
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    smoke = replace(study, profile=replace(TINY, name="smoke"))
    smoke.publish("table3", CELLS)
    with pytest.raises(NothingToDo, match="This needs the cohort pocovid. .*") as caught:
        smoke.open_other("pocovid", "table3")
    assert "lusbio download" in str(caught.value) or "LUSBIO_DATA" in str(caught.value)
    assert written(smoke) == []


def test_two_folders_of_one_name_do_not_share_their_results(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    folders = [tmp_path / place / "hospital" for place in ("one", "two")]
    for folder in folders:
        cohort = make_small_cohort(folder)
        write_table(cohort.table, folder / "cohort.csv")
    for _ in range(2):
        open_study("smoke", str(folders[0]))
    with pytest.raises(
        CohortError, match=f"results named 'hospital' are those of {folders[0]}; give one of the folders"
    ):
        open_study("smoke", str(folders[1]))
    folders[0].rename(tmp_path / "moved")
    open_study("smoke", str(folders[1]))


def test_a_study_is_opened_by_names(monkeypatch, study):
    monkeypatch.setattr(door, "load_cohort", lambda name, settings, jobs: study.cohort)
    opened = open_study("smoke", "small", jobs=2, protocol="cross")
    assert (opened.profile.name, opened.cohort.name, opened.jobs, opened.protocol) == ("smoke", "small", 2, "cross")
    assert len(opened.specs(SEVERITY)) == 5
    with pytest.raises(ValueError, match="profile 'huge' is not one of smoke, laptop, paper"):
        open_study("huge", "small")
