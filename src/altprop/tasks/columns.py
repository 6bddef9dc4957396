"""Which column holds the images and which one the labels: decided by type, never by guessing from names."""

from typing import Any

from altprop.errors import UsageError


def choose(features: Any, where: str, image: str | None, label: str | None) -> tuple[str, str]:
    """(image column, label column) of a data set with these `datasets.Features`.

    A name that the user gave wins; else there must be exactly one Image and exactly one ClassLabel column.
    A named label column may also hold plain integers.
    """
    import datasets

    def only(kind: Any, word: str, argument: str, given: str | None) -> str:
        if given is not None and given not in features:
            raise UsageError(f"{where} has no column {given!r}: its columns are {_listed(features)}")
        if given is not None:
            return given
        found = [name for name, feature in features.items() if isinstance(feature, kind)]
        if len(found) == 1:
            return str(found[0])
        raise UsageError(
            f"{where} has {len(found) or 'no'} columns of the type {kind.__name__}, so that its {word} must "
            f"be named: its columns are {_listed(features)}; say which one with {argument}=NAME"
        )

    chosen = (
        only(datasets.Image, "images", "image", image),
        only(datasets.ClassLabel, "labels", "label", label),
    )
    _check_label(features[chosen[1]], chosen[1], where)
    return chosen


def _check_label(feature: Any, name: str, where: str) -> None:
    dtype = str(getattr(feature, "dtype", ""))
    if not dtype.startswith(("int", "uint")):
        raise UsageError(
            f"column {name!r} of {where} holds {_type(feature)}, which are not labels: take a column of the "
            "type ClassLabel or of integers from 0 up"
        )


def _listed(features: Any) -> str:
    return ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items()) or "none"


def _type(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind
