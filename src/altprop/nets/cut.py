"""Cut a user's own sequential model into blocks."""

from torch import nn

from altprop.errors import UsageError
from altprop.nets.black_box import BlackBox
from altprop.nets.block import Block
from altprop.nets.fields import Local
from altprop.nets.neurons import Cell, LeakyIntegrateAndFire, LeakyRate, MeanOverTime
from altprop.nets.step import Sign

AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Local)
NORM = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
POOL = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Unflatten)
STATIC = ("ReLU", "Tanh", "GELU", "LeakyReLU", "Sigmoid", "SiLU", "ELU", "Softplus", "Hardtanh", "ReLU6")
ACTIVATION = (*(getattr(nn, name) for name in STATIC), Sign, LeakyIntegrateAndFire, LeakyRate, Cell)


def blocks(model: nn.Module) -> nn.Sequential:
    """The model as a row of blocks, sharing its parameters: training the blocks trains the model.

    Every linear, convolutional or locally connected layer opens a block and takes the norm, activation and pooling
    that follow it. What stands before the first such layer, and a part that has children and is not `nn.Sequential`
    (a residual block, say), is a block of its own; so are a black box and a mean over time.

    Raises UsageError where the order of the parts is not known (the model is no `nn.Sequential`, so its `forward`
    may branch), where a part is used twice, or where two parts share a parameter.
    """
    if not isinstance(model, nn.Sequential):
        raise UsageError(
            f"blocks(model): {type(model).__name__} is not an nn.Sequential, so its forward() may branch and the order "
            "of its parts is unknown; write it as nn.Sequential(...), with each branching part as one module inside"
        )
    leaves = _leaves(model)
    _refuse_shared(leaves)
    groups: list[list[nn.Module]] = []
    open_block = False
    for _, leaf in leaves:
        if isinstance(leaf, AFFINE):
            groups.append([leaf])
            open_block = True
        elif open_block and _joins(leaf):
            groups[-1].append(leaf)
        else:
            groups.append([leaf])
            open_block = False
    return nn.Sequential(*(_block(group) for group in groups))


def _joins(leaf: nn.Module) -> bool:
    """Whether a part may stand behind an affine layer in its block: it has a derivative, and learns nothing."""
    if isinstance(leaf, BlackBox | MeanOverTime) or (list(leaf.children()) and not isinstance(leaf, ACTIVATION)):
        return False
    return not list(leaf.parameters()) or isinstance(leaf, NORM)


def _leaves(model: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The parts in order, nested sequentials opened, each with its name in the model."""
    found = []
    for name, part in model._modules.items():  # named_children() would hide a part that stands there twice
        if isinstance(part, nn.Sequential):
            found += _leaves(part, f"{prefix}{name}.")
        elif part is not None:
            found.append((prefix + name, part))
    return found


def _refuse_shared(leaves: list[tuple[str, nn.Module]]) -> None:
    owner: dict[object, str] = {}
    for name, leaf in leaves:
        for parameter in leaf.parameters():
            if owner.setdefault(parameter, name) != name:
                raise UsageError(
                    f"blocks(model): the parts {owner[parameter]!r} and {name!r} share a parameter, and each block "
                    "learns by itself; give every part its own parameters"
                )


def _block(group: list[nn.Module]) -> nn.Module:
    """A `Block` where the order is affine, norm, activation, pool; else the modules in a row, as one block."""
    slots: list[list[nn.Module]] = [[], [], [], []]
    place = 0
    for module in group:
        kind = next((i for i, k in enumerate((AFFINE, NORM, ACTIVATION, POOL)) if isinstance(module, k)), None)
        if kind is None or kind < place or (slots[kind] and kind < 3):
            return group[0] if len(group) == 1 else nn.Sequential(*group)
        slots[kind].append(module)
        place = kind
    affine, norm, activation, pool = slots
    return Block(
        affine[0] if affine else None,
        norm[0] if norm else None,
        activation[0] if activation else None,
        None if not pool else pool[0] if len(pool) == 1 else nn.Sequential(*pool),
    )
