"""The contenders: one plain function each, from a `Setting` to a `Contender`; and the controls that a rule must beat
to mean anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from altprop import rules
from altprop.bench import bidirectional_family as bidirectional
from altprop.bench import competitive_family as competitive
from altprop.bench import dual_family as dual
from altprop.bench import energy_family as energy
from altprop.bench import equilibrium_family as equilibrium
from altprop.bench import feedback_family as feedback
from altprop.bench import forward_forward_family as family
from altprop.bench import hebbian_family as hebbian
from altprop.bench import local_family as local
from altprop.bench import mixed_family as mixed
from altprop.bench import modulated_family as modulated
from altprop.bench import perturbation_family as perturbation
from altprop.bench import signal_propagation_family, target_family
from altprop.bench import spiking_family as spiking
from altprop.bench.cases import STRAIGHT_THROUGH
from altprop.bench.contender import SPIKING, TUNED, Card, Contender, Optimizer, Setting, adam, hidden, sgd


def backprop(setting: Setting) -> Contender:
    return Contender(
        "backprop", hidden(setting), optimizer={"all": adam(3e-3)}, schedule="cosine", card=Card(tuning=TUNED)
    )


def direct_feedback_alignment(setting: Setting) -> Contender:
    card = Card(tuning=TUNED)
    return Contender(
        "direct-feedback-alignment", hidden(setting), optimizer={"all": adam(2e-3)}, schedule="cosine", card=card
    )


def soft_wta(setting: Setting) -> Contender:
    card = Card(
        activation="centred, to the power 2",
        tuning="body's temperature and columns, readout's rate and batch size chosen on validation with one seed",
        note="the first two hidden blocks are one block four times as wide; a linear readout",
    )
    rate = {"digits": 5e-3}.get(setting.task, 2e-3)
    return Contender(
        "soft-wta",
        (4 * setting.width, *hidden(setting)[2:]),
        output=False,
        optimizer={"blocks": sgd(1.0), "head": adam(rate)},
        schedule="fall",
        batch_size={"digits": 32}.get(setting.task, 100),
        card=card,
    )


CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "backprop": backprop,
    "forward-forward": family.forward_forward,
    "unsupervised-forward-forward": family.unsupervised_forward_forward,
    "self-contrastive-forward-forward": family.self_contrastive_forward_forward,
    "recurrent-forward-forward": family.recurrent_forward_forward,
    "generative-forward-forward": family.generative_forward_forward,
    "signal-propagation": signal_propagation_family.signal_propagation,
    "mono-forward": family.mono_forward,
    "no-prop": target_family.no_prop,
    "spela": family.spela,
    "cascaded-forward": family.cascaded_forward,
    "channel-wise-competition": family.channel_wise_competition,
    "deeper-forward": family.deeper_forward,
    "pepita": modulated.pepita,
    "error-forward": modulated.error_forward,
    "direct-feedback-alignment": direct_feedback_alignment,
    "direct-random-target-projection": target_family.direct_random_target_projection,
    "feedback-alignment": feedback.feedback_alignment,
    "sign-symmetry": feedback.sign_symmetry,
    "kolen-pollack": feedback.kolen_pollack,
    "weight-mirror": feedback.weight_mirror,
    "sign-direct-feedback-alignment": feedback.sign_direct_feedback_alignment,
    "direct-kolen-pollack": feedback.direct_kolen_pollack,
    "forward-gradient": perturbation.forward_gradient,
    "local-forward-gradient": perturbation.local_forward_gradient,
    "node-perturbation": perturbation.node_perturbation,
    "weight-perturbation": perturbation.weight_perturbation,
    "predictive-coding": energy.predictive_coding,
    "incremental-predictive-coding": energy.incremental_predictive_coding,
    "nudged-predictive-coding": energy.nudged_predictive_coding,
    "error-predictive-coding": energy.error_predictive_coding,
    "adaptive-relaxation": energy.adaptive_relaxation,
    "fixed-prediction": energy.fixed_prediction,
    "z-il": energy.z_il,
    "difference-target-propagation": dual.difference_target_propagation,
    "dual-propagation": dual.dual_propagation,
    "dendritic-microcircuit": dual.dendritic_microcircuit,
    "equilibrium-propagation": equilibrium.equilibrium_propagation,
    "contrastive-hebbian": equilibrium.contrastive_hebbian,
    "generec": equilibrium.generec,
    "almeida-pineda": equilibrium.almeida_pineda,
    "bidirectional-predictive-coding": bidirectional.bidirectional_predictive_coding,
    "backward-prediction": bidirectional.backward_prediction,
    "forward-backward-lateral": bidirectional.forward_backward_lateral,
    "mixed": mixed.pca_and_feedback,
    "three-factor": mixed.three_factor,
    "e-prop": spiking.e_prop,
    "local-classifier": local.local_classifier,
    "predsim": local.predsim,
    "info-pro": local.info_pro,
    "deep-supervision": local.deep_supervision,
    "checkpointed-backprop": local.checkpointed_backprop,
    "accumulated-backprop": local.accumulated_backprop,
    "hebbian-pca": hebbian.hebbian_pca,
    "lateral-pca": hebbian.lateral_pca,
    "hebbian-ica": hebbian.hebbian_ica,
    "soft-hebb": competitive.soft_hebb,
    "competitive": competitive.competitive,
    "krotov-hopfield": competitive.krotov_hopfield,
    "bcm": competitive.bcm,
    "foldiak": competitive.foldiak,
    "stdp": spiking.stdp,
    "soft-wta": soft_wta,
}


def contender(name: str, setting: Setting) -> Contender:
    """A rule's contender; a rule that has none of its own gets its defaults on the common net."""
    if name in CONTENDERS:
        return CONTENDERS[name](setting)
    rule = rules.find(name)
    plain = Contender(name, hidden(setting))
    headless = replace(plain, output=False)
    refused = rule.supports(plain.network(setting, 0), setting.problem)
    return headless if refused and not rule.supports(headless.network(setting, 0), setting.problem) else plain


def controls(contenders: list[Contender], setting: Setting) -> list[Contender]:
    """What every comparison holds besides its rules: backprop, a linear classifier, and a readout on random blocks;
    and, for each net (or jitter) that is not the common one, backprop and the frozen readout on that very net."""
    common = reference(setting)
    found = [common, linear(common, setting), frozen(common, "")]
    known = {net_of(common, setting)}
    for other in contenders:
        if net_of(other, setting) in known:
            continue
        known.add(net_of(other, setting))
        whose = other.rule + (f", {other.variant}" if other.variant else "")
        where = f"on the net of {whose}"
        there = reference(replace(setting, net=other.net or setting.net))
        card = replace(there.card, activation=other.act, note=f"the hidden blocks of {whose}, and an output block")
        same = replace(there, widths=other.widths, act=other.act, init=other.init, net=other.net, jitter=other.jitter)
        options = {**other.net_options, **there.net_options}
        found.append(replace(same, variant=f"{there.variant} {where}".strip(), net_options=options, card=card))
        found.append(frozen(other if other.rule == "soft-wta" else found[-1], f" {where}"))
    return found


def reference(setting: Setting) -> Contender:
    """Backprop on the common net; through a surrogate of the spikes' derivative, and on a black box, which has none,
    with the identity's instead."""
    plain = backprop(setting)
    if setting.net in SPIKING:
        card = replace(plain.card, note="spikes have the derivative of a surrogate")
        return replace(plain, net_options={"derivative": True}, card=card)
    if setting.net != "black-box":
        return plain
    note = "the derivative of the identity stands for that of a box (straight-through estimate)"
    card = replace(plain.card, note=note)
    return replace(plain, variant=STRAIGHT_THROUGH, net_options={"derivative": "straight-through"}, card=card)


def net_of(c: Contender, setting: Setting) -> tuple[object, ...]:
    """What makes two contenders' controls the same."""
    options = {name: value for name, value in c.net_options.items() if name != "derivative"}
    return c.net or setting.net, c.widths, c.act, c.jitter, tuple(sorted(options.items()))


def linear(common: Contender, setting: Setting) -> Contender:
    """A linear classifier on the raw input."""
    rate = {"digits": 1e-1}.get(setting.task, 1e-2)
    card = Card("none", tuning=TUNED, note="a linear classifier on the raw input")
    return replace(common, variant="linear", widths=(), optimizer={"all": adam(rate)}, net_options={}, card=card)


def frozen(of: Contender, where: str, optimizer: Mapping[str, Optimizer] | None = None) -> Contender:
    """The same net with its hidden blocks left at their random values: only the readout learns, at its own rate, or by
    an optimizer that was tuned as the contender's was."""
    tuning = of.card.tuning if optimizer else TUNED
    card = replace(of.card, tuning=tuning, note="hidden blocks random and frozen, only the readout learns")
    rate = {"all": adam(3e-2)} if of.rule == "backprop" else {"blocks": sgd(1.0), "head": adam(1e-3)}
    return replace(of, variant=f"frozen{where}", frozen=True, optimizer=optimizer or rate, card=card)
