"""Random signs: every value is +1 or -1 with equal chance; what the rules of this family perturb with.

Of all noise with mean 0 and variance 1 in d dimensions, signs give a directional derivative the least variance (d - 1,
where normal noise has d + 1), and they cost one random bit each: drawing normal numbers for a layer's weights takes as
long as a product or two with them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

BYTES = torch.arange(256).unsqueeze(1).bitwise_and(2 ** torch.arange(8)).ne(0) * 2.0 - 1.0
"""The eight signs of every byte."""


def signs(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Float[Tensor, "..."]:
    """Signs in this shape, with the dtype and on the device of `like`, drawn on the CPU eight to a byte."""
    count = torch.Size(shape).numel()
    drawn = torch.randint(0, 256, (-(-count // 8),), generator=generator, dtype=torch.uint8)
    return BYTES.to(like).index_select(0, drawn.to(like.device).int()).view(-1)[:count].view(*shape)


def weight_signs(block: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Signs for every trainable parameter of a block, by its name in the block."""
    return {name: signs(p.shape, p, generator) for name, p in block.named_parameters() if p.requires_grad}
