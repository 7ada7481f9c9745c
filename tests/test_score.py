import dataclasses
import gc
import itertools
import json
import shutil
import threading
import weakref

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import TINY, broken_files, hospital_frames, make_small_cohort, moving_bar, silent, write_dicom

import lusbio
from lusbio.cli import main
from lusbio.errors import CohortError, LusbioError, VideoError
from lusbio.experts.inputs import fill_masked
from lusbio.files import build_folder
from lusbio.runs.predict import predict_videos
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.runs.train import execute
from lusbio.scoring.final_model import describe_model, train_final
from lusbio.scoring.score import (
    NOTICES,
    check_files,
    find_model,
    find_videos,
    look_at_each,
    score_in_blocks,
    score_videos,
)
from lusbio.videos import DecodedVideo, decode_video, encode_video, read_video
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS

PATIENCE_S = 60

pytestmark = pytest.mark.usefixtures("one_fit")


@pytest.fixture(autouse=True)
def _nothing_is_shipped(monkeypatch):
    """As in a release without a model, whatever is in the checkout."""
    monkeypatch.setattr("lusbio.scoring.score.shipped_files", lambda folder: [])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def model_folder(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_final(as_study(prepare_cohort(cohort, TINY, protocol="final")), folder, silent)
    return folder


def test_a_model_folder_says_what_it_is_made_from(model_folder):
    card = json.loads((model_folder / "card.json").read_text())
    assert card["cohort"] == "small" and card["videos"] == {"train": 32, "val": 8}
    assert set(card["experts"]) == set(TASKS) and "not a medical device" in card["limits"]
    assert BIOMARKER_NAMES[20] in card["masked"]
    assert card["experts"]["disease"]["never_learnt"] == list(TASKS["disease"].classes[3:])
    validation = card["experts"]["lung_severity"]["validation"]
    assert {"auc", "accuracy", "f1"} < set(validation) and 0 < validation["majority_accuracy"] < 1
    assert (validation["videos"], validation["patients"]) == (8, 4)
    assert {path.suffix for path in model_folder.iterdir()} == {".json", ".safetensors", ".skops", ".md"}


def test_the_card_for_people_says_first_what_the_model_is_not_for(model_folder, cohort):
    _, header, body = (model_folder / "README.md").read_text().split("---\n", 2)
    words = yaml.safe_load(header)
    assert words["license"] == "mit" and "simulated-patients" in words["tags"]
    assert body.splitlines()[0] == f"**{NOTICES[True]}**" and "simulated patients alone" in NOTICES[True]
    card = json.loads((model_folder / "card.json").read_text())
    for expert in card["experts"].values():
        assert f"| {expert['validation']['auc']} | {expert['validation']['accuracy']} |" in body
    real = describe_model(card | {"simulated": False, "notes": []})
    assert NOTICES[False] in real and "license: other" in real and "real patients" in real


def test_weights_are_halves_and_say_nearly_the_same(cohort, model_folder):
    from safetensors.numpy import load_file

    weights = load_file(model_folder / "weights.safetensors")
    assert {str(value.dtype) for name, value in weights.items() if "num_batches" not in name} == {"float16"}
    name = json.loads((model_folder / "card.json").read_text())["run"]
    run = find_model(build_folder("runs", name))
    paths = find_videos(cohort.video_paths()[:4])
    said = [score_videos(paths, model)[BIOMARKER_NAMES[0]] for model in (run, find_model(model_folder))]
    np.testing.assert_allclose(*said, atol=0.01)


def test_the_model_that_comes_along_is_taken_and_one_that_was_fetched_before_it(
    model_folder, cohort, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    monkeypatch.setattr("lusbio.scoring.score.shipped_files", lambda folder: sorted(model_folder.iterdir()))
    assert lusbio.load_model().network.folder == model_folder
    (row,) = lusbio.load_model().score(cohort.video_paths()[0]).itertuples()
    assert row.frames == 6
    shutil.copytree(model_folder, tmp_path / "model")
    assert lusbio.load_model().network.folder == tmp_path / "model"
    assert lusbio.load_model(str(model_folder)).network.folder == model_folder
    assert main(["score", str(cohort.video_paths()[0])]) == 0
    assert capsys.readouterr().err.startswith(NOTICES[True])


def test_whole_frames_of_dicom_are_scored_with_a_warning(model_folder, tmp_path, capsys):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=[])
    assert main(["score", str(path), "--model", str(model_folder)]) == 0
    assert "names no ultrasound region; its whole frames are scored" in capsys.readouterr().err


def test_a_moved_model_scores_as_before(model_folder, cohort, tmp_path):
    paths = find_videos(cohort.video_paths()[:3])
    before = score_videos(paths, find_model(model_folder))
    shutil.copytree(model_folder, tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(before, score_videos(paths, find_model(tmp_path / "elsewhere")))


def test_scores_have_38_biomarkers_and_a_probability_per_class(model_folder, cohort):
    scores = score_videos(find_videos(cohort.video_paths()[:4]), find_model(model_folder))
    assert list(scores.columns[:41]) == ["video_id", "frames", "seconds", *BIOMARKER_NAMES] and len(scores) == 4
    for task in TASKS.values():
        columns = [f"{task.name}={name}" for name in task.classes]
        np.testing.assert_allclose(scores[columns].sum(axis=1), 1, atol=1e-6)
    learnt = scores[[BIOMARKER_NAMES[0], BIOMARKER_NAMES[5]]]
    assert learnt.notna().all(axis=None) and scores[BIOMARKER_NAMES[20]].isna().all()
    diseases = scores[[f"disease={name}" for name in TASKS["disease"].classes]]
    assert diseases.isna().all().tolist() == [False] * 3 + [True] * 4  # the cohort has three of seven


def test_a_run_scores_as_it_predicted(cohort):
    prepared = prepare_cohort(cohort, TINY)
    folder = execute(prepared.specs(BIOMARKER_TASK)[0], prepared)
    predictions = pd.read_csv(folder / "predictions.csv")
    scores = score_videos(find_videos(prepared.cohort.video_paths()), find_model(folder))
    np.testing.assert_allclose(scores[BIOMARKER_NAMES[0]], predictions["p_0"], atol=0.01)  # bfloat16, other batches
    assert find_model(None).network.folder.name.startswith(BIOMARKER_TASK)


@pytest.fixture
def videos(tmp_path):
    """Five videos of many frames, of one, and of seven, whose four clips are three."""
    paths = {}
    for name, n_frames in (("long", 50), ("single", 1), ("short", 7), ("odd", 17), ("same", 50)):
        frames = np.random.default_rng(n_frames).integers(0, 256, (n_frames, 40, 48), np.uint8)
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], frames)
    return paths


@pytest.fixture
def model(model_folder):
    """A model that takes four clips of every video."""
    found = find_model(model_folder)
    settings = dataclasses.replace(found.network.settings, evaluation_clips=4)
    spec = dataclasses.replace(found.network.spec, training=settings)
    return dataclasses.replace(found, network=dataclasses.replace(found.network, spec=spec))


@pytest.mark.parametrize("names", [["long"], ["long", "single", "short", "odd", "same"]])
def test_scores_are_those_of_decoding_first_and_predicting_then(names, videos, model, monkeypatch):
    monkeypatch.setattr("lusbio.network.training.choose_precision", lambda device: "32-true")  # the rest is order
    paths = {name: videos[name] for name in names}
    decoded = [DecodedVideo(decode_video(path, model.network.settings.image_size)) for path in paths.values()]
    scores = score_videos(paths, model)
    assert list(scores["video_id"]) == names
    expected = predict_videos(decoded, model.network, 4)
    np.testing.assert_allclose(scores[list(BIOMARKER_NAMES)], expected, atol=1e-6)
    for task, expert in model.experts.items():
        columns = [f"{task}={name}" for name in TASKS[task].classes]
        decided = expert.predict_probabilities(fill_masked(expected))
        np.testing.assert_allclose(scores[columns].fillna(0), decided, atol=1e-6)


def test_a_video_scores_the_same_alone_and_among_others_and_on_any_number_of_cores(videos, model, monkeypatch):
    among = score_videos(videos, model).set_index("video_id")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    for name, path in videos.items():
        alone = score_videos({name: path}, model).set_index("video_id")
        columns = list(BIOMARKER_NAMES)
        pd.testing.assert_frame_equal(alone[columns], among.loc[[name], columns], check_exact=True)


def test_threads_are_as_before_when_all_is_scored(videos, model):
    import torch

    before = torch.get_num_threads()
    score_videos(videos, model)
    assert torch.get_num_threads() == before


def test_broken_videos_are_named_at_the_end_and_the_rows_of_the_others_are_kept(model, videos, tmp_path, monkeypatch):
    monkeypatch.setattr("lusbio.scoring.score.BLOCK", 2)
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    broken = broken_files(tmp_path, tmp_path / "good.mp4")
    cheap = {"absent.mp4", "empty.mp4", "notes.txt"}  # they are named before anything is scored
    broken = {path.name: path for path in broken.values() if path.name not in cheap}
    first, *others = broken
    paths = {first: broken[first], **videos, **{name: broken[name] for name in others}}
    blocks = score_in_blocks(paths, model)
    rows = [video_id for block in itertools.islice(blocks, 3) for video_id in block["video_id"]]
    assert rows == list(videos)
    with pytest.raises(CohortError) as caught:
        next(blocks)
    assert len(caught.value.problems) == len(broken)
    assert all(str(path) in str(caught.value) for path in broken.values())
    with pytest.raises(CohortError, match=first):
        score_videos(paths, model)


def test_files_that_are_no_videos_are_named_before_the_network_is_loaded(model, videos, tmp_path):
    (tmp_path / "empty.mp4").touch()
    places = {"missing": tmp_path / "missing.mp4", "empty": tmp_path / "empty.mp4", **videos}
    network = dataclasses.replace(model.network, folder=tmp_path)
    without_weights = dataclasses.replace(model, network=network)
    with pytest.raises(CohortError) as caught:
        score_videos(places, without_weights)
    assert len(caught.value.problems) == 2


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
    (old / "run.json").write_text(json.dumps({"spec": {"profile": "paper"}, "code": "of long ago", "masked": []}))
    execute(prepared.specs(BIOMARKER_TASK, budget=0.5)[0], prepared)  # newer, but half a training
    assert find_model(None).network.folder == good


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
    assert header.split(",")[0] == "video_id" and len(header.split(",")) == len(row.split(",")) == 41 + 15
    assert row.startswith("bar,20,0.8000,")  # frames, and seconds at 25 frames per second


def test_one_broken_video_costs_the_command_no_row_of_the_others(model_folder, videos, tmp_path, capsys):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    broken = broken_files(tmp_path, tmp_path / "good.mp4")
    cut = next(
        path for name, path in broken.items() if path.suffix == ".mp4" and path.is_file() and path.stat().st_size
    )
    places = [str(path) for path in (*videos.values(), cut)]
    assert main(["score", *places, "--model", str(model_folder)]) == 1
    said = capsys.readouterr()
    assert [line.split(",")[0] for line in said.out.splitlines()] == ["video_id", *videos]
    assert str(cut) in said.err


# --- many videos at once ---


def see(results):
    """What was made of each video, without what its file is."""
    return [found for found, _ in results]


@pytest.fixture
def paths(tmp_path):
    """Twelve videos of 1 to 12 frames."""
    found = [tmp_path / f"v{k}.npy" for k in range(12)]
    for k, path in enumerate(found):
        np.save(path, np.zeros((k + 1, 16, 16), np.uint8))
    return found


def test_results_come_in_order_whatever_is_ready_first(paths, monkeypatch):
    last_is_seen = threading.Event()

    def look(frames):
        if len(frames) == 1:
            assert last_is_seen.wait(PATIENCE_S)
        last_is_seen.set()
        return len(frames)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert see(look_at_each(paths[:2], 16, look)) == [1, 2]


def test_the_first_result_is_there_before_the_last_video_is_decoded(paths, monkeypatch):
    first_is_there = threading.Event()

    def decode(path, size):
        if path == paths[-1]:
            assert first_is_there.wait(PATIENCE_S)
        return read_video(path, size)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.score.read_video", decode)
    results = look_at_each(paths, 16, len)
    assert next(results)[0] == 1
    first_is_there.set()
    assert see(results) == list(range(2, 13))


def test_one_video_is_decoded_while_another_is_looked_at(paths, monkeypatch):
    looking, decoding = threading.Event(), threading.Event()

    def decode(path, size):
        if path == paths[1]:
            assert looking.wait(PATIENCE_S)
            decoding.set()
        return read_video(path, size)

    def look(frames):
        if len(frames) == 1:
            looking.set()
            assert decoding.wait(PATIENCE_S)
        return len(frames)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.score.read_video", decode)
    assert see(look_at_each(paths[:2], 16, look)) == [1, 2]


def test_frames_are_forgotten_however_many_videos_there_are(paths, monkeypatch):
    held, most = weakref.WeakSet(), []

    class Frames(np.ndarray):
        """An array that can stand in a set."""

        __hash__ = object.__hash__

    def decode(path, size):
        frames, info = read_video(path, size)
        held.add(frames := frames.view(Frames))
        most.append(len(held))
        return frames, info

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.score.read_video", decode)
    assert see(look_at_each(paths * 5, 16, len)) == [*range(1, 13)] * 5
    gc.collect()
    assert max(most) <= 4 and not held


def test_broken_videos_are_handed_over_as_errors_in_their_place(paths, tmp_path):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    broken = list(broken_files(tmp_path, tmp_path / "good.mp4").values())
    results = list(look_at_each([*broken, paths[0], *broken], 16, len))
    assert [isinstance(result, VideoError) for result in results] == [
        *[True] * len(broken),
        False,
        *[True] * len(broken),
    ]
    assert all(str(path) in str(error) for path, error in zip(broken, results, strict=False))


def test_what_goes_wrong_while_looking_is_not_taken_for_a_broken_video(paths):
    def look(frames):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(look_at_each(paths, 16, look))


def test_missing_empty_and_foreign_files_are_named_without_decoding(paths, tmp_path, monkeypatch):
    decoded = []

    def decode(path, size):
        decoded.append(path)
        return read_video(path, size)

    monkeypatch.setattr("lusbio.scoring.score.read_video", decode)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("hello")
    bad = [tmp_path / "empty.mp4", tmp_path / "notes.txt", tmp_path / "missing.mp4", tmp_path]
    with pytest.raises(CohortError) as caught:
        check_files([paths[0], *bad, paths[1]])
    assert len(caught.value.problems) == 4 and decoded == bad
    check_files(paths)


def test_a_cut_video_can_be_told_by_its_frames_and_seconds(model_folder, tmp_path):
    """A GIF announces no length: half of one decodes without a complaint."""
    from PIL import Image

    first, *others = map(Image.fromarray, moving_bar())
    first.save(tmp_path / "whole.gif", save_all=True, append_images=others, duration=100)
    content = (tmp_path / "whole.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: content.rindex(b"\x21\xf9\x04", 0, len(content) // 2)])
    scores = score_videos(find_videos([tmp_path / "whole.gif", tmp_path / "cut.gif"]), find_model(model_folder))
    assert scores["frames"][0] == 20 and 0 < scores["frames"][1] < 20
    assert scores["seconds"][0] == pytest.approx(2.0) and scores["seconds"][1] < 2
