"""The contenders on spiking nets of their own: one plain function each, from a `Setting` to a `Contender`."""

import math

from altprop.bench.contender import Card, Contender, Setting, adam, sgd


def e_prop(setting: Setting) -> Contender:
    """One recurrent block, which sees the input row after row."""
    features = math.prod(int(n or 1) for n in setting.problem.input_shape)
    return Contender(
        "e-prop",
        (2 * setting.width,),
        net="recurrent-spiking",
        net_options={"steps": rows(features), "rows": True},
        optimizer={"blocks": adam(3e-3), "blocks.3": adam(3e-2)},
        schedule="fall",
        card=Card(
            "leaky integrate-and-fire",
            tuning="rates and schedule chosen on the digits' validation images with one seed",
            note="one recurrent block, twice as wide; the input comes row after row, a row a time step",
        ),
    )


def stdp(setting: Setting) -> Contender:
    """One block of neurons that compete for spikes, and a linear readout of their rates."""
    return Contender(
        "stdp",
        (setting.width,),
        net="spike-coded",
        output=False,
        optimizer={"blocks": sgd(1.0), "head": adam(1e-2)},
        schedule="constant",
        card=Card(
            "leaky integrate-and-fire",
            tuning="rate, homeostasis, losses and time constants chosen on the digits' validation images",
            note="one hidden block over 16 time steps, with positive weights; a linear readout of its rates",
        ),
    )


def rows(features: int) -> int:
    """How many equal rows a vector is cut into: as many as a square image has, or nearly so."""
    return max(n for n in range(1, math.isqrt(features) + 1) if features % n == 0)
