"""How good drawings of classes are, beside real images: recognised, as various, no copies, alike to a classifier."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 500


def recognised(
    scores: Float[Tensor, "drawings classes"], labels: Int[Tensor, " drawings"]
) -> Float[Tensor, " classes"]:
    """For each class, the share of its drawings that a classifier takes for it; NaN for one without drawings."""
    right = (scores.argmax(1) == labels).double()
    return torch.stack([right[labels == c].mean() for c in range(scores.size(1))])


def spread(
    drawings: Float[Tensor, "drawings ..."],
    labels: Int[Tensor, " drawings"],
    real: Float[Tensor, "images ..."],
    real_labels: Int[Tensor, " images"],
) -> float:
    """Mean distance between two drawings of a class, mean over classes, divided by the same of real images."""
    classes = labels.unique().tolist()
    drawn, found = (
        torch.stack([torch.pdist(x[y == c].flatten(1)).mean() for c in classes]).mean()
        for x, y in ((drawings, labels), (real, real_labels))
    )
    return float(drawn / found)


def nearest(drawings: Float[Tensor, "drawings ..."], images: Float[Tensor, "images ..."]) -> float:
    """Mean Euclidean distance of a drawing to the image nearest to it; 0 where all are copies."""
    images = images.flatten(1)
    return float(torch.cat([torch.cdist(d, images).amin(1) for d in drawings.flatten(1).split(CHUNK)]).mean())


def frechet(a: Float[Tensor, "rows features"], b: Float[Tensor, "others features"]) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances (Heusel et al. 2017, arXiv 1706.08500).

    The trace of the root is the sum of the roots of the eigenvalues of A B, which are real and not negative.
    """
    a, b = a.double(), b.double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    one, other = a.t().cov(), b.t().cov()
    roots = torch.linalg.eigvals(one @ other).real.clamp_min(0).sqrt().sum()
    return float(shift + one.trace() + other.trace() - 2 * roots)


def class_gaussians(
    images: Float[Tensor, "images inputs"],
    image_labels: Int[Tensor, " images"],
    labels: Int[Tensor, " drawings"],
    generator: torch.Generator,
) -> Float[Tensor, "drawings inputs"]:
    """Drawings without any net: from each class's Gaussian of the pixels themselves, kept within [0, 1]."""
    x = images.new_empty(len(labels), images.size(1))
    for c in labels.unique().tolist():
        own = images[image_labels == c]
        rows = (labels == c).nonzero().squeeze(1)
        e = torch.randn(len(rows), len(own), generator=generator)
        x[rows] = own.mean(0) + (e @ (own - own.mean(0))) / len(own) ** 0.5
    return x.clamp_(0, 1)
