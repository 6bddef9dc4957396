"""The oracles that `altprop verify` runs: independent computations that a rule must agree with.

A rule's oracles are its lines here, "module:function"; the test suite runs them all.
"""

from collections.abc import Iterator
from importlib import import_module

from altprop.oracles.check import Check, Oracle, apart

__all__ = ["ORACLES", "Check", "Oracle", "apart", "find", "verify"]

ORACLES: dict[str, tuple[str, ...]] = {
    "fixed-prediction": ("altprop.oracles.energy:fixed_prediction_equals_backprop",),
    "z-il": ("altprop.oracles.energy:z_il_equals_backprop",),
    "predictive-coding": ("altprop.oracles.energy:gradients_equal_autograd_of_the_whole_energy",),
    "three-factor": (
        "altprop.oracles.three_factor:an_error_modulates_each_synapse",
        "altprop.oracles.three_factor:traces_are_sums_over_time",
        "altprop.oracles.three_factor:a_reward_follows_the_likelihood_of_what_was_drawn",
        "altprop.oracles.three_factor:a_delayed_reward_needs_traces",
    ),
}


def find(place: str) -> Oracle:
    module, _, name = place.partition(":")
    oracle: Oracle = getattr(import_module(module), name)
    return oracle


def verify(rule: str) -> Iterator[tuple[str, list[Check]]]:
    """Each oracle of the rule: what it says of itself, and what it found."""
    for place in ORACLES.get(rule, ()):
        oracle = find(place)
        yield (oracle.__doc__ or place).strip().splitlines()[0], list(oracle())
