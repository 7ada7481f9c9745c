# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""Where a network's weights come from and where they are kept: public files, and safetensors.

Without the file and without a network, training starts from scratch and says so; it never waits
long and never fails for that.
"""

import contextlib
import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from lusbio.errors import LusbioError
from lusbio.files import atomic_path, build_folder, file_sha256
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.network.i3d import I3DResNet50, inflate_resnet50

IMAGENET_URL = "https://download.pytorch.org/models"
"""Where torchvision's files lie."""

_ENDS = {USUAL_BACKBONE: ("conv1", "fc"), OTHER_BACKBONE: ("blocks.0.conv", "blocks.6.proj")}
"""Names of the first and the last layer."""

SCRATCH = "scratch"
CHOICES = ("imagenet", SCRATCH)

PATIENCE_S = 5.0
"""How long a server may take to answer before it counts as out of reach. (Engineering choice.)"""


VARIABLES = {USUAL_BACKBONE: "LUSBIO_WEIGHTS", OTHER_BACKBONE: "LUSBIO_WEIGHTS_I3D"}
"""Environment variables that may name the file a backbone starts from."""

IMAGENET = {USUAL_BACKBONE: "resnet18-f37072fd.pth", OTHER_BACKBONE: "resnet50-0676ba61.pth"}
"""torchvision's files (``IMAGENET1K_V1``); a name holds the first digits of the sha256."""

KINETICS = {OTHER_BACKBONE: "I3D_8x8_R50.pyth"}
"""PyTorchVideo's files, better where there are any. Their sha256 is not published, so they are taken where somebody put
them and not downloaded."""


@dataclass(frozen=True)
class InitialWeights:
    """What a training starts from.

    Attributes:
        name: ``"scratch"``, or the file's name and the first digits of its sha256, e.g.
            ``"resnet18-f37072fd"``: the same name, the same numbers.
        path: The file; None for scratch.
        description: A phrase to print: which weights, and why these. Holds no folder.
    """

    name: str
    path: Path | None
    description: str


def find_initial_weights(choice: str, backbone: str = "tsm_resnet18") -> InitialWeights:
    """Find the weights that a training shall start from.

    ``"imagenet"`` looks, in this order, at the file named by the environment variable
    ``LUSBIO_WEIGHTS``, or ``LUSBIO_WEIGHTS_I3D`` for I3D (``.pth`` or ``.safetensors``); in torch's cache and
    in the build folder, ``weights/``, for PyTorchVideo's Kinetics file (``I3D_8x8_R50.pyth``, I3D only) and
    then for torchvision's ImageNet file; then it tries, once per process and for a few seconds, to
    download torchvision's file (45 or 98 MB) there.

    Args:
        choice: ``"imagenet"`` or ``"scratch"``.
        backbone: ``"tsm_resnet18"`` or ``"i3d_resnet50"``.

    Returns:
        The weights; from scratch where none can be had, with the reason in the description.

    Raises:
        LusbioError: If a file that is there is not the right one, or the variable names no file.
        ValueError: If the choice or the backbone is another word.

    Example:
        >>> find_initial_weights("scratch").description
        'from scratch: asked for'
    """
    if choice not in CHOICES:
        raise ValueError(f"initial weights {choice!r} are not one of {', '.join(CHOICES)}")
    if backbone not in IMAGENET:
        raise ValueError(f"backbone {backbone!r} is not one of {', '.join(IMAGENET)}")
    if choice == SCRATCH:
        return InitialWeights(SCRATCH, None, "from scratch: asked for")
    if names_a_file(backbone):
        variable, named = VARIABLES[backbone], Path(os.environ[VARIABLES[backbone]])
        if not named.is_file():
            raise LusbioError(f"{named}: no such file; {variable} names the weights to start from")
        return _describe(named, f"named by {variable}")
    folder = build_folder("weights")
    for files, what in ((KINETICS, "Kinetics"), (IMAGENET, "ImageNet")):
        for place in (Path(torch.hub.get_dir(), "checkpoints"), folder):
            if backbone in files and (place / files[backbone]).is_file():
                return _describe(place / files[backbone], what)
    if obstacle := _download(IMAGENET[backbone], folder):
        return InitialWeights(SCRATCH, None, f"from scratch: no ImageNet weights ({obstacle})")
    return _describe(folder / IMAGENET[backbone], "ImageNet")


def names_a_file(backbone: str) -> bool:
    """Whether the environment names the file that a backbone shall start from."""
    return bool(os.environ.get(VARIABLES[backbone]))


def _describe(path: Path, why: str) -> InitialWeights:
    sha256 = file_sha256(path)
    if path.name in IMAGENET.values() and not sha256.startswith(_digits(path.name)):
        raise LusbioError(f"{path}: sha256 begins with {sha256[:8]}, expected {_digits(path.name)}; delete the file")
    name = path.stem if path.stem.endswith(f"-{sha256[:8]}") else f"{path.stem}-{sha256[:8]}"
    return InitialWeights(name, path, f"from {name}{path.suffix} ({why})")


def _digits(name: str) -> str:
    """The first digits of the sha256 that torchvision's file names hold."""
    return Path(name).stem.rpartition("-")[2]


@functools.cache
def _download(name: str, folder: Path) -> str:
    """Fetch torchvision's file into a folder; returns what was in the way, or nothing. One try."""
    try:
        import pooch
    except ImportError:
        return "pooch, which downloads them, is not installed"
    url = f"{IMAGENET_URL}/{name}"
    if not _answers(url, PATIENCE_S):
        return "no network"
    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=PATIENCE_S)
    try:
        with atomic_path(folder / name) as temporary:
            pooch.retrieve(url, None, fname=temporary.name, path=folder, downloader=downloader)
            sha256 = file_sha256(temporary)
            if not sha256.startswith(_digits(name)):
                raise LusbioError(f"what arrived has sha256 {sha256[:8]}..., expected {_digits(name)}...")
    except LusbioError as error:
        return str(error)
    except Exception as error:  # whatever broke, training from scratch is possible
        return f"the download broke: {type(error).__name__}"
    return ""


def _answers(url: str, seconds: float) -> bool:
    """Whether a server answers in time. In a thread, since looking up a name can hang by itself."""
    import requests

    answers = []

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            answers.append(requests.head(url, timeout=seconds).ok)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return any(answers)


def load_initial_weights(network: nn.Module, choice: str) -> str:
    """Put initial weights into a network.

    A stem for three colours fits a grey network after summing over the colours: that is what the
    network would compute on a grey image copied into all three. A last layer of another size stays
    as it was made. A 2-D ResNet-50 fits ``I3DResNet50`` after inflation: each kernel is repeated in time
    and divided by the number of repetitions.

    Args:
        network: A ``TSMResNet18`` or an ``I3DResNet50``.
        choice: ``"imagenet"`` (from scratch where they cannot be had), ``"scratch"``, or the ``name`` of
            weights found before, which must be found again.

    Returns:
        The description of what it starts from.

    Raises:
        LusbioError: If the named weights are not found here, or the file's names or shapes do not fit.

    Source:
        ImageNet weights (Kinetics for I3D): Gare et al. 2022, Section 2 and Table 6; inflation: Carreira
        and Zisserman 2017, Section 2.4; the sum over colours: engineering choice.
    """
    found = find_initial_weights(choice if choice in CHOICES else "imagenet", name_backbone(network))
    if choice not in CHOICES and found.name != choice:
        raise LusbioError(f"initial weights {choice!r} are not found here; {found.description}")
    if found.path is not None:
        _load_strictly(network, fit_state(network, read_weights(found.path)), found.path)
    return found.description


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors from a file, without running anything that stands in it.

    Args:
        path: ``.safetensors``, or else what ``torch.save`` wrote; in PyTorchVideo's files the tensors are
            found under ``model_state``.

    Returns:
        Tensors on the CPU by parameter name.

    Raises:
        LusbioError: If the file is missing or is not that; names its sha256.
    """
    if not path.is_file():
        raise LusbioError(f"{path}: no such file, expected weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in many ways inside torch
        content = f"{path} (sha256 {file_sha256(path)[:8]}...)"
        raise LusbioError(f"{content} does not hold weights: {type(error).__name__}") from error
    if isinstance(state, dict) and "model_state" in state:
        state = state["model_state"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LusbioError(f"{path} holds a {type(state).__name__}, expected tensors by parameter name")
    return state


def _load_strictly(network: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not part of the network" for name in state if name not in own]
    shapes = [(name, tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state]
    problems += [f"{name} has shape {found}, expected {needed}" for name, found, needed in shapes if found != needed]
    if problems:
        raise LusbioError(f"{path} does not fit the network, {len(problems)} problems: {'; '.join(problems[:5])}")
    network.load_state_dict(state)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of a network, on any device and in any memory format, atomically as safetensors."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state))  # save_file would make it readable for its owner only


def load_weights(network: nn.Module, path: Path) -> None:
    """Put back what ``save_weights`` wrote, into a network made like the one that was saved.

    A ``LusbioError`` if the file is missing or broken, or a name or shape differs; nothing is loaded then.
    """
    _load_strictly(network, read_weights(path), path)


def name_backbone(network: nn.Module) -> str:
    """What a ``RunSpec`` calls a network."""
    return OTHER_BACKBONE if isinstance(network, I3DResNet50) else USUAL_BACKBONE


def fit_state(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a file as a network can take them; what still does not fit is left as it is.

    A stem for three colours is summed over the colours, a 2-D ResNet-50 is inflated for ``I3DResNet50``, a
    last layer of another size is the network's own.

    Args:
        network: A ``TSMResNet18`` or an ``I3DResNet50``.
        state: Tensors by parameter name.

    Returns:
        Tensors by the network's parameter names.
    """
    own, state = network.state_dict(), dict(state)
    first, last = _ENDS[name_backbone(network)]
    if isinstance(network, I3DResNet50) and "conv1.weight" in state:
        state = inflate_resnet50(state)
    stem, kernel = f"{first}.weight", state.get(f"{first}.weight")
    if kernel is not None and kernel.shape[1] == 3 and own[stem].shape[1] == 1:
        state[stem] = kernel.sum(dim=1, keepdim=True)
    names = [f"{last}.{parameter}" for parameter in ("weight", "bias")]
    if any(name in state and state[name].shape != own[name].shape for name in names):
        state |= {name: own[name] for name in names}
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    return counters | state  # files from before torch 0.4 have no counters
