"""The contenders of signal propagation on nets of every kind, and backprop on the spiking one: one plain function each,
from a `Setting` to a `Contender`."""

from dataclasses import replace

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden


def signal_propagation(setting: Setting) -> Contender:
    card = Card(tuning=TUNED)
    return Contender("signal-propagation", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="cosine", card=card)


def sign(setting: Setting) -> Contender:
    card = Card("sign", tuning="rate of the plain net, which was better on validation than a quarter of it")
    return replace(signal_propagation(setting), variant="sign", act="sign", card=card)


def hebbian(setting: Setting) -> Contender:
    """On a net of leaky rate neurons too."""
    card = Card(tuning="the best of three rates on MNIST's validation images, one seed")
    plain = signal_propagation(setting)
    return replace(plain, variant="hebbian", options={"loss": "hebbian"}, optimizer={"all": adam(7e-4)}, card=card)


def spiking(setting: Setting, shows: str) -> Contender:
    """With either of the paper's solutions: the loss at the voltage, or at a surrogate before the spike."""
    card = Card("spikes", tuning=TUNED)
    return replace(
        signal_propagation(setting),
        variant=shows,
        net="spiking",
        net_options={"shows": shows},
        optimizer={"all": adam(1e-3)},
        card=card,
    )


def spiking_backprop(setting: Setting, derivative: bool) -> Contender:
    """Through a surrogate of the spikes' derivative; or without, so that nothing reaches the hidden blocks."""
    note = "" if derivative else "without a derivative only the output block learns"
    card = Card("spikes", tuning=TUNED, note=note)
    return Contender(
        "backprop",
        hidden(setting),
        variant="surrogate" if derivative else "no surrogate",
        net="spiking",
        net_options={"derivative": derivative},
        frozen=not derivative,
        optimizer={"all": adam(1e-3)},
        schedule="cosine",
        card=card,
    )


def convolutional(setting: Setting) -> Contender:
    """Three convolutions, normalised, on images that are moved by up to a pixel."""
    card = Card(tuning="normalisation and jitter, each by itself, were better on validation after 2 epochs, one seed")
    plain = signal_propagation(setting)
    return replace(plain, variant="conv, jitter", widths=(32, 64, 128), net_options={"norm": True}, jitter=1, card=card)
