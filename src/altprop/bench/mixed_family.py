"""The contenders with a third factor, and those that mix rules on one net: one plain function each."""

from altprop.bench.contender import TUNED, Card, Contender, Setting, adam, hidden


def three_factor(setting: Setting) -> Contender:
    card = Card(tuning=TUNED, note="modulated by each neuron's own error")
    return Contender("three-factor", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="cosine", card=card)


def pca_and_feedback(setting: Setting) -> Contender:
    card = Card(tuning=TUNED, note="the first block by Hebbian PCA, the others by direct feedback alignment")
    return Contender("mixed", hidden(setting), schedule="cosine", card=card)
