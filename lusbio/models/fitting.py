"""Making a file's tensors fit a network of another stem, last layer or number of dimensions."""

import torch
from torch import nn

from lusbio.models import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.models.i3d import I3DResNet50, inflate_resnet50

ENDS = {USUAL_BACKBONE: ("conv1", "fc"), OTHER_BACKBONE: ("blocks.0.conv", "blocks.6.proj")}
"""Names of the first and the last layer."""


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
    first, last = ENDS[name_backbone(network)]
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
