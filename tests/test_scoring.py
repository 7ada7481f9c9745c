import json
import shutil

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY, make_small_cohort
from test_videos import broken_files, moving_bar

from lusbio.cli import main
from lusbio.errors import CohortError, LusbioError
from lusbio.execution import execute
from lusbio.labels import BIOMARKER_TASK
from lusbio.runs import prepare_cohort
from lusbio.scoring import find_model, find_videos, score_videos, train_final
from lusbio.videos import encode_video
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def model_folder(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_final(prepare_cohort(cohort, TINY, protocol="final"), folder, "scratch")
    return folder


def test_a_model_folder_says_what_it_is_made_from(model_folder):
    card = json.loads((model_folder / "card.json").read_text())
    assert card["cohort"] == "small" and card["videos"] == {"train": 32, "val": 8}
    assert set(card["experts"]) == set(TASKS) and "not a medical device" in card["limits"]
    assert BIOMARKER_NAMES[7] in card["masked"] and "auc" in card["experts"]["disease"]["validation"]
    assert {path.suffix for path in model_folder.iterdir()} == {".json", ".safetensors", ".skops"}


def test_a_moved_model_scores_as_before(model_folder, cohort, tmp_path):
    paths = find_videos(cohort.video_paths()[:3])
    before = score_videos(paths, find_model(model_folder))
    shutil.copytree(model_folder, tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(before, score_videos(paths, find_model(tmp_path / "elsewhere")))


def test_scores_have_38_biomarkers_and_a_probability_per_class(model_folder, cohort):
    scores = score_videos(find_videos(cohort.video_paths()[:4]), find_model(model_folder))
    assert list(scores.columns[:39]) == ["video_id", *BIOMARKER_NAMES] and len(scores) == 4
    for task in TASKS.values():
        columns = [f"{task.name}={name}" for name in task.classes]
        np.testing.assert_allclose(scores[columns].sum(axis=1), 1, atol=1e-6)
    learnt = scores[[BIOMARKER_NAMES[0], BIOMARKER_NAMES[5]]]
    assert learnt.notna().all(axis=None) and scores[BIOMARKER_NAMES[7]].isna().all()


def test_a_run_scores_as_it_predicted(cohort):
    prepared = prepare_cohort(cohort, TINY)
    folder = execute(prepared.specs(BIOMARKER_TASK)[0], prepared)
    predictions = pd.read_csv(folder / "predictions.csv")
    scores = score_videos(find_videos(prepared.cohort.video_paths()), find_model(folder))
    np.testing.assert_allclose(
        scores[BIOMARKER_NAMES[0]], predictions["p_0"], atol=0.01
    )  # bfloat16, other batches
    assert find_model(None).folder.name.startswith(BIOMARKER_TASK)


def test_all_broken_videos_are_named_before_anything_is_scored(model_folder, tmp_path):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    broken = broken_files(tmp_path, tmp_path / "good.mp4")
    with pytest.raises(CohortError) as caught:
        score_videos(find_videos([tmp_path / "good.mp4", *broken.values()]), find_model(model_folder))
    assert len(caught.value.problems) == len(broken)


def test_folders_are_searched_and_empty_ones_refused(cohort, tmp_path):
    assert len(find_videos([cohort.folder])) == 40
    for place in ("a/v1.npy", "b/v1.npy", "a/._v1.npy", "b/v2.npy"):
        (tmp_path / "two" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "two" / place).touch()
    named = [str(tmp_path / "two" / "a" / "v1.npy"), str(tmp_path / "two" / "b" / "v1.npy"), "v2"]
    assert list(find_videos([tmp_path / "two"])) == named
    (tmp_path / "two").rename(tmp_path / ".two")
    with pytest.raises(LusbioError, match="no video in this folder"):
        find_videos([tmp_path])


def test_runs_of_other_code_or_another_format_are_passed_over(cohort, tmp_path, monkeypatch):
    prepared = prepare_cohort(cohort, TINY)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    good = execute(prepared.specs(BIOMARKER_TASK)[0], prepared)
    old = tmp_path / "runs" / f"{BIOMARKER_TASK}-fold0-000000000000"
    old.mkdir()
    (old / "run.json").write_text(
        json.dumps({"spec": {"profile": "paper"}, "code": "of long ago", "masked": []})
    )
    assert find_model(None).folder == good


def test_what_is_no_model_is_refused(tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text("{")
    with pytest.raises(LusbioError, match="not the card of a model"):
        find_model(tmp_path / "broken")
    with pytest.raises(LusbioError, match="neither a model folder"):
        find_model(tmp_path)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "nothing"))
    with pytest.raises(LusbioError, match="no finished biomarker run"):
        find_model(None)


def test_score_writes_csv_to_standard_output(model_folder, tmp_path, capsys):
    encode_video(moving_bar(), tmp_path / "bar.mp4", 25)
    assert main(["score", str(tmp_path / "bar.mp4"), "--model", str(model_folder)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split(",")[0] == "video_id" and len(header.split(",")) == len(row.split(",")) == 39 + 15
    assert row.startswith("bar,")
