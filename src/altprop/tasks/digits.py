"""The digits of scikit-learn: 1,797 grey images of 8x8 with 17 levels. Always there, no download.

Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998.
"""

import numpy as np
import torch

from altprop.tasks.catalogue import BUILT_IN
from altprop.tasks.task import SPLITS, Split, Task, divided

TRAIN, VALIDATION = 1197, 300
# Part of the protocol: another seed is another task.
PERMUTATION_SEED = 20240229


def digits() -> Task:
    """Train, validation and test of 1,197, 300 and 300 images, by one fixed permutation."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(PERMUTATION_SEED)
    rows = torch.randperm(len(labels), generator=generator).numpy()
    # The writers of neighbouring rows are the same, so that an unshuffled division would test on other hands.
    x = images.astype(np.uint8).reshape(-1, 1, 8, 8)[rows]
    y = labels.astype(np.int64)[rows]
    bounds = (0, TRAIN, TRAIN + VALIDATION, len(y))
    splits = {
        name: Split(x[start:stop], y[start:stop], scale=1 / 16)
        for name, start, stop in zip(SPLITS, bounds, bounds[1:], strict=False)
    }
    names = tuple(str(digit) for digit in range(10))
    return divided(BUILT_IN, splits, names)
