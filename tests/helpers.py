"""What several test files need: a tiny cohort and study, and runs, rows, videos and weights that are made up.

Test modules import from here and never from each other.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.table import Cohort, check_table
from lusbio.experts.rows import Row
from lusbio.files import ROOT
from lusbio.profiles import PROFILES, Profile
from lusbio.runs.spec import PreparedCohort, Run, prepare_cohort
from lusbio.runs.study import Study, as_study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, DISEASE, SEVERITY, TASKS, Kind

if TYPE_CHECKING:
    import torch

    from lusbio.paper.leakage import LadderVideos

SMALL = replace(PROFILES["smoke"].training, frames=2, image_size=32, epochs=1, clips_per_epoch=8, batch_size=8)
TINY = replace(PROFILES["smoke"], name="tiny", training=SMALL)
"""A profile of which a run takes less than a second: a network that has seen eight clips once."""

THREE_EPOCHS = replace(TINY, training=replace(SMALL, epochs=3, clips_per_epoch=16))
"""Where a training is looked at while it goes on."""

RESNET50_BLOCKS = (3, 4, 6, 3)


def silent(line: str) -> None:
    """Say nothing."""


# --- a cohort: severity is brightness, the disease is where a bright bar lies ---


def make_small_cohort(folder: Path, patients: int = 20, videos: int = 2, simulated: bool = True) -> Cohort:
    """Write ``patients * videos`` arrays of 6 frames, 32 x 32 pixels, and their table."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        severity = patient % 4
        disease = TASKS[DISEASE].classes[patient % 3]
        for k in range(videos):
            frames = rng.integers(0, 40, (6, 32, 32)) + 50 * severity
            frames[:, 3 + 10 * (patient % 3) : 9 + 10 * (patient % 3)] = 250
            path = folder / "videos" / f"p{patient}_v{k}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, frames.clip(0, 255).astype(np.uint8))
            findings = dict.fromkeys(BIOMARKER_NAMES, np.nan)
            findings[BIOMARKER_NAMES[0]] = float(severity < 2)
            findings[BIOMARKER_NAMES[5]] = float(patient % 3 == 1)
            findings[BIOMARKER_NAMES[20]] = 1.0  # only one value: has to be masked
            rows.append(
                {
                    "video_id": path.stem,
                    "patient_id": f"p{patient}",
                    "path": str(path.relative_to(folder)),
                    "lung_severity": str(severity),
                    "disease": disease,
                    "sf_value": 450.0 - 60 * severity,
                    **findings,
                }
            )
    table = check_table(pd.DataFrame(rows), folder)
    return Cohort("small", table, folder, simulated=simulated)


def small_study(
    folder: Path, jobs: int = 1, *, profile: Profile = TINY, protocol: str | None = None, **cohort
) -> Study:
    """The small cohort as a study: ``**cohort`` goes to ``make_small_cohort``."""
    return as_study(prepare_cohort(make_small_cohort(folder, **cohort), profile, jobs, protocol), jobs)


def execute_notebook(name: str, cohort: Path, folder: Path, monkeypatch) -> Path:
    """Run a notebook at ``smoke`` on a folder of videos; build and figures go below ``folder``: returns the tables'."""
    for variable, place in (("LUSBIO_BUILD", "build"), ("LUSBIO_FIGURES", "figures")):
        monkeypatch.setenv(variable, str(folder / place))
    executed = folder / "executed.ipynb"
    command = [sys.executable, "-m", "lusbio.publish.run_notebook", str(ROOT / "notebooks" / f"{name}.ipynb")]
    command += ["--output", str(executed), "--profile", "smoke", "--cohort", str(cohort), "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if "error" in str(cell.get("outputs"))[:40]]
    return folder / "figures" / "smoke" / cohort.name


def as_pocovid(cohort: Cohort, name: str = "pocovid") -> Cohort:
    """The cohort with sources, conservative groups of two patients, and one video of the other probe."""
    patient = cohort.table["patient_id"].str[1:].astype(int)
    group = [f"{k // 2 % 4}-g{k // 2}" for k in patient]
    table = cohort.table.assign(group_id=group, probe=["linear"] + ["convex"] * (len(patient) - 1))
    return replace(cohort, table=table, name=name, simulated=False, notes=("40 of 131 videos present",))


# --- runs, rows and videos of a ladder that nobody trained ---


def made_up_run(prepared: PreparedCohort, folder, task: str = BIOMARKER_TASK, fold: int = 0, masked=()) -> Run:
    """A run whose biomarker 0 tells severity 0 and 1 from 2 and 3, and 1 tells odd from even; no training."""
    folder.mkdir(exist_ok=True)
    severity = prepared.table["lung_severity"].astype(int).to_numpy()
    n_outputs = len(BIOMARKER_NAMES) if task == BIOMARKER_TASK else 4
    p = np.full((len(severity), n_outputs), 0.5 if task == BIOMARKER_TASK else 0.0)
    if task == BIOMARKER_TASK:
        p[:, 0], p[:, 1] = severity < 2, severity % 2
    else:
        p[np.arange(len(severity)), severity] = 1
    predictions = pd.DataFrame({"video_id": prepared.table["video_id"], "split": prepared.splits(fold)})
    predictions[[f"p_{k}" for k in range(n_outputs)]] = p
    spec = prepared.specs(task, initial_weights="scratch")[fold]
    info = {
        "masked": list(masked),
        "initial_weights": "scratch",
        "device": "CPU",
        "precision": "32-true",
        "versions": {},
        "kept_epoch": 1,
        "trained_on": 1,
    }
    return Run(folder, spec, info, predictions, p[:, :1].repeat(512, 1).astype(np.float32), minutes=1.5)


def random_runs(prepared: PreparedCohort, folder, task: str = BIOMARKER_TASK, seed: int = 0, masked=()) -> list[Run]:
    """As ``made_up_run``, one run per fold, which say of every video whatever comes to their mind."""
    rng, runs = np.random.default_rng(seed), []
    folder.mkdir(exist_ok=True)
    for fold in run_folds(prepared.protocol):
        run = made_up_run(prepared, folder / f"{task}-{seed}-{fold}", task, fold, masked)
        n_videos, n_outputs = run.probabilities.shape
        multilabel = task == BIOMARKER_TASK
        p = rng.random((n_videos, n_outputs)) if multilabel else rng.dirichlet(np.ones(n_outputs), n_videos)
        columns = [f"p_{k}" for k in range(n_outputs)]
        predictions = run.predictions.assign(**dict(zip(columns, p.T, strict=True)))
        runs.append(replace(run, predictions=predictions, features=rng.random((n_videos, 4))))
    return runs


def made_up_row(features: str, classifier: str, seed: int, skill: float = 1.0, validation_accuracy: float = 0.5) -> Row:
    """Three runs that decide lung severity of the same 60 videos of 20 patients, the better the larger ``skill``."""
    rng, patients = np.random.default_rng(seed), np.random.default_rng(0)
    held_out = []
    for _ in range(3):
        labels = patients.integers(0, 4, 60)  # the same whatever is made of them
        scores = rng.normal(size=(60, 4))
        scores[np.arange(60), labels] += skill
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        held_out.append(HeldOut(labels, p, np.repeat(np.arange(20).astype(str), 3), np.arange(60)))
    truth, right = np.arange(100) % 2, np.arange(100) < 100 * validation_accuracy  # which is the AUC too
    said = np.eye(4)[np.where(right, truth, 1 - truth)]
    validated = HeldOut(truth, said, np.arange(100), np.arange(100))
    kind = Kind(features)
    return Row(kind, classifier, SEVERITY, tuple(held_out), (validated,) * 3, tuple("0123"), minutes=1.5)


def make_ladder_videos(
    labels_of_group, *, videos=4, signal=0.0, fingerprint=("group", 2.0), n_sources=6, seed=0
) -> "LadderVideos":
    """Videos whose frames show, each as its own pattern, the class (``signal``) and one of the units."""
    from lusbio.experts.baselines import FRAMES
    from lusbio.paper.leakage import LadderVideos

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
    return LadderVideos(DISEASE, np.arange(len(group)), labels, names, pixels, files, units)


# --- files of videos ---


def moving_bar(n_frames: int = 20, size: int = 64) -> np.ndarray:
    """A bright bar that moves down one pixel per frame: uint8 (n_frames, size, size)."""
    frames = np.full((n_frames, size, size), 40, np.uint8)
    for t in range(n_frames):
        frames[t, 10 + t : 16 + t] = 220
    return frames


CODECS = {
    ".mp4": ("h264", "yuv420p"),
    ".mov": ("h264", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".mpeg": ("mpeg1video", "yuv420p"),
    ".mpg": ("mpeg2video", "yuv420p"),
    ".gif": ("gif", "rgb8"),
    ".webm": ("vp9", "yuv420p"),
}
"""Codec and pixels of the containers that ``write_container`` knows."""


def write_container(path: Path) -> Path:
    """The moving bar in a container of the type that the suffix says."""
    import av

    codec, pixels = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, pixels
        for frame in moving_bar():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def broken_files(folder: Path, good: Path) -> dict[str, Path]:
    """One file for each way of being broken, by the reason that the error must give."""
    import av

    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "half.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "notes.txt").write_text("hello")
    (folder / "text.dcm").write_text("hello " * 100)
    np.save(folder / "floats.npy", np.zeros((3, 4, 4)))
    np.savez(folder / "several.npz", a=np.zeros(3))
    (folder / "several.npz").rename(folder / "several.npy")
    with av.open(str(folder / "whole.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "bgr24"
        for frame in np.tile(moving_bar(), (5, 1, 1)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="bgr24")))
        container.mux(stream.encode())
    whole = (folder / "whole.avi").read_bytes()
    # Cut between two frames: nothing but the announced count tells that something is missing.
    (folder / "truncated.avi").write_bytes(whole[: whole.rindex(b"00d", 0, len(whole) // 2)])
    names = {
        "is empty": "empty.mp4",
        "does not decode": "text.mp4",
        "does not decode as a video": "half.mp4",
        "file type '.txt'": "notes.txt",
        "not a readable DICOM": "text.dcm",
        "expected uint8": "floats.npy",
        "archive of several": "several.npy",
        "announced frames decode": "truncated.avi",
        "cannot be opened": "absent.mp4",
    }
    return {reason: folder / name for reason, name in names.items()}


# --- weights by torchvision's names ---


def random_resnet50(n_outputs: int = 5) -> dict[str, "torch.Tensor"]:
    """Tensors by torchvision's names, with batch statistics that matter; one grey channel in."""
    import torch
    from torch import nn

    state: dict[str, torch.Tensor] = {}

    def add_kernel(name: str, channels_out: int, channels_in: int, size: int) -> None:
        state[f"{name}.weight"] = torch.empty(channels_out, channels_in, size, size)
        nn.init.kaiming_normal_(state[f"{name}.weight"], mode="fan_out", nonlinearity="relu")

    def add_norm(name: str, channels: int) -> None:
        for parameter, low, high in (("weight", 0.5, 1), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
            state[f"{name}.{parameter}"] = torch.empty(channels).uniform_(low, high)
        state[f"{name}.running_var"] = torch.empty(channels).uniform_(0.5, 2)

    add_kernel("conv1", 64, 1, 7)
    add_norm("bn1", 64)
    channels = 64
    for stage, n_blocks in enumerate(RESNET50_BLOCKS):
        inner = 64 * 2**stage
        for block in range(n_blocks):
            name = f"layer{stage + 1}.{block}"
            sizes = ((inner, channels, 1), (inner, inner, 3), (4 * inner, inner, 1))
            for number, size in enumerate(sizes, 1):
                add_kernel(f"{name}.conv{number}", *size)
                add_norm(f"{name}.bn{number}", size[0])
            if block == 0:
                add_kernel(f"{name}.downsample.0", 4 * inner, channels, 1)
                add_norm(f"{name}.downsample.1", 4 * inner)
            channels = 4 * inner
    state["fc.weight"], state["fc.bias"] = torch.randn(n_outputs, channels) / 45, torch.randn(n_outputs)
    return state


def see_frames(state: dict[str, "torch.Tensor"], frames: "torch.Tensor", stages: int = 4) -> "torch.Tensor":
    """The first stages of a 2-D ResNet-50, written down independently: (B, 1, H, W) -> maps."""
    import torch
    import torch.nn.functional as F

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        statistics = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics)

    def conv(x: torch.Tensor, name: str, **settings) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], **settings)

    x = F.max_pool2d(norm(conv(frames, "conv1", stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    for stage in range(stages):
        for block in range(RESNET50_BLOCKS[stage]):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = norm(conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = norm(conv(y, f"{name}.conv2", stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if not block:
                x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x


# --- ratings that nobody gave ---


def rate(video_id: str, answers: dict | None, **changes) -> dict:
    """A rating as it is logged; None: the video is not usable."""
    from lusbio.labelling.sheet import GROUPS, encode_answers

    rating = {"position": 1, "video_id": video_id, "sha256": "0" * 64, "repeat": 0, "usable": answers is not None}
    return rating | encode_answers(answers or dict.fromkeys(GROUPS)) | {"seconds": 1.0, "comment": ""} | changes


def make_rated_cohort(folder: Path, patients: int = 4) -> Path:
    """The small cohort without labels, and two raters of all its videos who answer at random, now and then unsure."""
    from lusbio.cohorts.table import REQUIRED_COLUMNS, write_table
    from lusbio.files import file_sha256
    from lusbio.labelling.ratings import RatingLog
    from lusbio.labelling.sheet import GROUPS, ORIGIN, options_of
    from lusbio.vocabulary import BIOMARKER_FLAGS

    cohort, rng = make_small_cohort(folder, patients), np.random.default_rng(1)
    write_table(cohort.table[list(REQUIRED_COLUMNS)], folder / "cohort.csv")
    for rater, role in (("r1", "trainee"), ("r2", "specialist")):
        ratings = []
        for video, path in zip(cohort.table["video_id"], cohort.video_paths(), strict=True):
            options = {group: [o for o in options_of(group) if o not in BIOMARKER_FLAGS] for group in GROUPS}
            answers = {group: [str(rng.choice(names))] for group, names in options.items()}
            answers[ORIGIN] = [options[ORIGIN][0 if answers["B-lines"] == ["b_lines_none"] else 1]]
            answers["effusion"] = answers["effusion"] if rng.random() < 0.8 else None
            ratings.append(rate(video, answers, sha256=file_sha256(path)))
        RatingLog(folder / "ratings", rater, new_rater=True, role=role).append(*ratings)
    return folder


# --- DICOM as hospitals have it ---

NAMING = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-4711",
    "PatientBirthDate": "19500102",
    "InstitutionName": "Saint Elsewhere",
    "StudyDate": "20210304",
    "AccessionNumber": "ACC0815",
    "ReferringPhysicianName": "Roe^Richard",
}
"""Tags that say whose an object is; none of their values may be found in what is made from it."""

REGION = (16, 8, 80, 72)
"""Left, top, right, bottom of the image in ``hospital_frames``, the last two outside."""


def hospital_frames(n_frames: int = 6, height: int = 96, width: int = 128) -> np.ndarray:
    """The moving bar within a frame that is white, as if written on, everywhere else: uint8 (N, height, width)."""
    left, top, right, bottom = REGION
    frames = np.full((n_frames, height, width), 255, np.uint8)
    frames[:, top:bottom, left:right] = moving_bar(n_frames, right - left)
    return frames


def region_item(box=REGION, **tags):
    """An item of SequenceOfUltrasoundRegions: 2D, tissue, 0.5 mm a pixel."""
    from pydicom import Dataset

    item = Dataset()
    left, top, right, bottom = box
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    scale = dict.fromkeys(("PhysicalDeltaX", "PhysicalDeltaY"), 0.05)
    units = dict.fromkeys(("PhysicalUnitsXDirection", "PhysicalUnitsYDirection"), 3)
    for name, value in (
        {"RegionSpatialFormat": 1, "RegionDataType": 1, "RegionFlags": 0} | units | scale | tags
    ).items():
        setattr(item, name, value)
    return item


def write_dicom(
    path: Path, frames: np.ndarray, *, kind="MONOCHROME2", compression="none", regions=None, **tags
) -> Path:
    """A multi-frame ultrasound object; ``tags`` are added, those that are None removed.

    Args:
        path: The file.
        frames: uint8 (N, H, W), grey.
        kind: ``MONOCHROME1``, ``MONOCHROME2``, ``RGB``, ``YBR_FULL`` or ``PALETTE COLOR``, of the same image.
        compression: ``"none"``, ``"rle"``, ``"jpeg"`` or ``"mpeg"``.
        regions: Items of SequenceOfUltrasoundRegions; None for one, empty for no such tag.
        **tags: By keyword.
    """
    import pydicom
    from pydicom import uid
    from pydicom.pixels import convert_color_space

    dicom = pydicom.Dataset()
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dicom.SOPClassUID = dicom.file_meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    dicom.SOPInstanceUID = dicom.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=[path.stem])
    dicom.NumberOfFrames, dicom.Rows, dicom.Columns = frames.shape
    dicom.SamplesPerPixel = 3 if kind in ("RGB", "YBR_FULL") else 1
    dicom.PhotometricInterpretation = kind
    dicom.BitsAllocated = dicom.BitsStored = 8
    dicom.HighBit, dicom.PixelRepresentation, dicom.FrameTime = 7, 0, "50"
    if dicom.SamplesPerPixel == 3:
        dicom.PlanarConfiguration, frames = 0, np.repeat(frames[..., None], 3, -1)
        frames = convert_color_space(frames, "RGB", kind) if kind == "YBR_FULL" else frames
    elif kind == "PALETTE COLOR":  # colour k is the grey 255 - k
        frames, lut = 255 - frames, np.arange(255, -1, -1, dtype=np.uint8).tobytes()
        for colour in ("Red", "Green", "Blue"):
            setattr(dicom, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
            setattr(dicom, f"{colour}PaletteColorLookupTableData", lut)
    frames = 255 - frames if kind == "MONOCHROME1" else frames
    dicom.PixelData = frames.tobytes()
    _compress(dicom, frames, compression)
    if (items := [region_item()] if regions is None else regions) != []:
        dicom.SequenceOfUltrasoundRegions = pydicom.Sequence(items)
    for name, value in (NAMING | {"TransducerType": "LINEAR"} | tags).items():
        if value is not None:
            setattr(dicom, name, value)
        elif name in dicom:
            delattr(dicom, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.save_as(path, enforce_file_format=True)
    return path


def _compress(dicom, frames: np.ndarray, compression: str) -> None:
    import io
    import tempfile

    from PIL import Image
    from pydicom import uid
    from pydicom.encaps import encapsulate

    from lusbio.videos import encode_video

    if compression == "rle":
        dicom.compress(uid.RLELossless)
    elif compression == "jpeg":
        files = [io.BytesIO() for _ in frames]
        for frame, file in zip(frames, files, strict=True):
            Image.fromarray(frame).save(file, "JPEG", quality=95)
        dicom.PixelData = encapsulate([file.getvalue() for file in files])
        dicom.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        if dicom.SamplesPerPixel == 3:
            dicom.PhotometricInterpretation = "YBR_FULL_422"
    elif compression == "mpeg":
        with tempfile.TemporaryDirectory() as folder:
            encode_video(frames, Path(folder) / "film.mp4", 20)
            dicom.PixelData = encapsulate([(Path(folder) / "film.mp4").read_bytes()])
        dicom.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    if compression != "none":
        dicom["PixelData"].is_undefined_length = True
