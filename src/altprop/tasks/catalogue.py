"""The tasks that have a short name. Any other name is a folder or a data set's id on the hub."""

from difflib import get_close_matches

BUILT_IN = "digits"

# Short name -> id on the hub. The originals of all of these are stored without loss.
HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}


def names() -> dict[str, str]:
    """Every short name with one line about it; imports nothing heavy."""
    return {BUILT_IN: "8x8 digits of scikit-learn, built in"} | {
        short: f"image data set {hub} of the Hugging Face hub" for short, hub in HUB.items()
    }


def suggestion(name: str) -> str:
    """' (did you mean ...?)' for a name that is near a short one, else nothing."""
    near = get_close_matches(name.lower().replace("_", "-"), names(), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
