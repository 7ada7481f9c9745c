"""A whole cohort in the memory of a GPU, and a network compiled for it: what lets small batches keep a GPU busy.

Nothing here decides numbers: clips, their order and their targets are exactly those of ``clips.ClipDataset``,
and a compiled network computes the same up to the last digits. Several runs share one GPU as processes of their
own; where NVIDIA's MPS runs (``nvidia-cuda-mps-control -d``), their kernels run side by side, else in turns.
"""

import warnings
from types import MethodType

import numpy as np
import torch
from torch import nn

from lusbio.network.clips import EVALUATION_BATCH, ClipDataModule, ClipDataset, frame_indices
from lusbio.network.training import VideoModule
from lusbio.runs.spec import Say

SHARE_OF_FREE_MEMORY = 0.5
"""How much of a GPU's free memory the frames of a cohort may take; the rest is for training. (Engineering choice.)"""

_EXPECTED_WARNING = ".*should not be instantiated"
"""torch's tracer instantiates the function behind the temporal shift and warns that nobody should."""


def prepare_gpu(module: VideoModule, data: ClipDataModule, device: torch.device, say: Say = print) -> None:
    """Make a training ready for a GPU: the cohort in its memory, the network compiled. Elsewhere, nothing.

    Where the frames do not fit, clips keep coming from the cache; what the compiler cannot do runs uncompiled.
    Either is said. ``TORCH_COMPILE_DISABLE=1`` in the environment leaves the compiler out.

    Args:
        module: From ``assembly.assemble``; its network is compiled when it is first used.
        data: From ``assembly.assemble``; its dataset is replaced by a resident one.
        device: Where to compute.
        say: Takes a line or two.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = True  # the sizes never change: let cuDNN try which algorithm is fastest
    free = torch.cuda.mem_get_info(device)[0]
    say(hold_frames(data, device, int(SHARE_OF_FREE_MEMORY * free)))
    compile_network(module.network, data.batch_size, say=say)


def hold_frames(data: ClipDataModule, device: torch.device, room: int) -> str:
    """Let clips come from the memory of a device, if the frames of all videos fit into ``room`` bytes there.

    The dataset of ``data`` is replaced then. Says what was done, as a line to print.
    """
    videos = data.dataset.videos
    needed = sum(video.n_frames for video in videos) * videos[0].load()[0].size  # their frames are of one size
    size = f"{len(data.dataset)} videos, {needed / 1e9:.2f} GB"
    if needed > room:
        return f"clips from the cache: {size}, and there is room for {room / 1e9:.2f} GB on the device"
    try:
        data.dataset = ResidentClips(data.dataset, device)
    except torch.OutOfMemoryError:  # another run was faster
        return f"clips from the cache: {size}, and the device is full"
    return f"clips from the memory of the device: {size}"


class ResidentClips(ClipDataset):
    """The clips of a ``ClipDataset``, cut on the device that holds the frames of all videos: a batch is one gather.

    Args:
        clips: Whose videos, targets and length of clips these are.
        device: Where the frames go, as one uint8 tensor (N, H, W), video after video.
    """

    def __init__(self, clips: ClipDataset, device: torch.device):
        super().__init__(clips.videos, clips.targets, clips.clip_frames)
        self.n_frames = np.array([video.n_frames for video in clips.videos])
        self.offsets = np.concatenate([[0], self.n_frames.cumsum()])
        size = clips.videos[0].load().shape[1:]
        self.frames = torch.empty((int(self.offsets[-1]), *size), dtype=torch.uint8, device=device)
        for video, start, n in zip(self.videos, self.offsets[:-1], self.n_frames, strict=True):
            # A copy, since the map is read-only; one video at a time never needs the cohort twice.
            self.frames[start : start + n] = torch.from_numpy(np.array(video.load()))

    def __getitems__(self, items: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """A batch: ``clips`` uint8 (B, T, 1, H, W) on the device; ``targets`` and ``rows`` on the CPU."""
        places = [
            self.offsets[row] + frame_indices(self.n_frames[row], self.clip_frames, start) for row, start in items
        ]
        index = torch.from_numpy(np.concatenate(places)).to(self.frames.device)
        clips = self.frames.index_select(0, index)  # (B * T, H, W)
        clips = clips.unflatten(0, (len(items), self.clip_frames)).unsqueeze(2)
        rows = torch.tensor([row for row, _ in items])
        return {"clips": clips, "targets": self.targets[rows], "rows": rows}


def compile_network(network: nn.Module, batch_size: int, *, backend: str = "inductor", say: Say = print) -> None:
    """Compile a network's forward and backward pass for the two sizes of batches that nearly all batches have.

    Training batches become one CUDA graph each way, replayed as a whole: a batch of 4 clips is hundreds of kernels,
    and launching them one by one takes about as long as computing them. Evaluation batches are large and only
    have their kernels fused. The last batch of an epoch is smaller: it runs uncompiled, since compiling takes longer
    than all such batches together. So does ``features_and_logits``, which predicts once, when the training is over.

    Parameters, their names and copies of the network stay what they were.

    Args:
        network: ``TSMResNet18`` or ``I3DResNet50``, from float clips (B, T, 1, H, W) to logits (B, K).
        batch_size: Clips of a training batch.
        backend: torch's compiler; ``"aot_eager"`` traces and differentiates, but generates no code.
        say: Takes a line when the compiler fails; that size of batches runs uncompiled from then on.
    """
    torch.compiler.reset()  # the process may have trained another network: let go of its graphs and their memory
    eager = type(network).forward
    graphs = {"mode": "reduce-overhead"} if backend == "inductor" else {}
    usual = {"backend": backend, "fullgraph": True, "dynamic": False}
    compiled = {
        (True, batch_size): torch.compile(eager, **usual, **graphs),
        (False, EVALUATION_BATCH): torch.compile(eager, **usual),
    }

    def forward(self: nn.Module, clips: torch.Tensor) -> torch.Tensor:
        kind = (self.training, len(clips))
        if kind not in compiled:
            return eager(self, clips)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=_EXPECTED_WARNING)
                return compiled[kind](self, clips)
        except Exception as error:  # compilers fail in many ways; what is wrong with the clips fails again below
            del compiled[kind]
            reason = str(error).strip().splitlines()[:1]
            say(f"batches of {len(clips)} run uncompiled: {type(error).__name__} {' '.join(reason)[:200]}".rstrip())
            return eager(self, clips)

    network.forward = MethodType(forward, network)
