"""The tasks that have a short name. Any other name is a folder or a data set's id on the hub."""

from difflib import get_close_matches

BUILT_IN = "digits"

# Short name -> id on the hub. The originals of all of these are stored without loss.
HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}

# Ending of a short name -> how many of its images are side by side.
TUPLES = {"pairs": 2, "triples": 3}


def names() -> dict[str, str]:
    """Every short name with one line about it; imports nothing heavy."""
    found = {BUILT_IN: "8x8 digits of scikit-learn, built in"}
    found |= {short: f"image data set {hub} of the Hugging Face hub" for short, hub in HUB.items()}
    return found | {
        f"mnist-{ending}": f"{count} images of mnist side by side, {10**count:,} classes; so with any name above"
        for ending, count in TUPLES.items()
    }


def parts_of(name: str) -> tuple[str, int] | None:
    """The short name and the number of its images in a tuple, "mnist" and 2 for "mnist-pairs"; None for other names."""
    base, _, ending = name.rpartition("-")
    return (base, TUPLES[ending]) if ending in TUPLES and base in (BUILT_IN, *HUB) else None


def suggestion(name: str) -> str:
    """' (did you mean ...?)' for a name that is near a short one, else nothing."""
    near = get_close_matches(name.lower().replace("_", "-"), names(), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
