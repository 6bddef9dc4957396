"""All learning rules: one name, one place. A new rule is one new file and one line here.

Other packages add theirs by entry points: group `altprop.rules`, a rule's name to "module:Class".
"""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from altprop.errors import UsageError

if TYPE_CHECKING:
    from altprop.rule import Rule

RULES = {
    "backprop": "altprop.rules.reference.backprop:Backprop",
    "forward-forward": "altprop.rules.forward_only.forward_forward:ForwardForward",
    "unsupervised-forward-forward": (
        "altprop.rules.forward_only.unsupervised_forward_forward:UnsupervisedForwardForward"
    ),
    "self-contrastive-forward-forward": (
        "altprop.rules.forward_only.self_contrastive_forward_forward:SelfContrastiveForwardForward"
    ),
    "recurrent-forward-forward": "altprop.rules.forward_only.recurrent_forward_forward:RecurrentForwardForward",
    "generative-forward-forward": "altprop.rules.forward_only.generative_forward_forward:GenerativeForwardForward",
    "signal-propagation": "altprop.rules.forward_only.signal_propagation:SignalPropagation",
    "mono-forward": "altprop.rules.forward_only.mono_forward:MonoForward",
    "no-prop": "altprop.rules.forward_only.no_prop:NoProp",
    "spela": "altprop.rules.forward_only.spela:SPELA",
    "cascaded-forward": "altprop.rules.forward_only.cascaded_forward:CascadedForward",
    "channel-wise-competition": "altprop.rules.forward_only.channel_wise_competition:ChannelWiseCompetition",
    "deeper-forward": "altprop.rules.forward_only.deeper_forward:DeeperForward",
    "pepita": "altprop.rules.forward_only.pepita:PEPITA",
    "error-forward": "altprop.rules.forward_only.error_forward:ErrorForward",
    "direct-feedback-alignment": "altprop.rules.feedback.direct_feedback_alignment:DirectFeedbackAlignment",
    "direct-random-target-projection": (
        "altprop.rules.feedback.direct_random_target_projection:DirectRandomTargetProjection"
    ),
    "feedback-alignment": "altprop.rules.feedback.feedback_alignment:FeedbackAlignment",
    "sign-symmetry": "altprop.rules.feedback.sign_symmetry:SignSymmetry",
    "kolen-pollack": "altprop.rules.feedback.kolen_pollack:KolenPollack",
    "weight-mirror": "altprop.rules.feedback.weight_mirror:WeightMirror",
    "sign-direct-feedback-alignment": (
        "altprop.rules.feedback.sign_direct_feedback_alignment:SignDirectFeedbackAlignment"
    ),
    "direct-kolen-pollack": "altprop.rules.feedback.direct_kolen_pollack:DirectKolenPollack",
    "forward-gradient": "altprop.rules.perturbation.forward_gradient:ForwardGradient",
    "local-forward-gradient": "altprop.rules.perturbation.local_forward_gradient:LocalForwardGradient",
    "node-perturbation": "altprop.rules.perturbation.node_perturbation:NodePerturbation",
    "weight-perturbation": "altprop.rules.perturbation.weight_perturbation:WeightPerturbation",
    "predictive-coding": "altprop.rules.energy.predictive_coding:PredictiveCoding",
    "incremental-predictive-coding": ("altprop.rules.energy.incremental_predictive_coding:IncrementalPredictiveCoding"),
    "nudged-predictive-coding": "altprop.rules.energy.nudged_predictive_coding:NudgedPredictiveCoding",
    "error-predictive-coding": "altprop.rules.energy.error_predictive_coding:ErrorPredictiveCoding",
    "adaptive-relaxation": "altprop.rules.energy.adaptive_relaxation:AdaptiveRelaxation",
    "fixed-prediction": "altprop.rules.energy.fixed_prediction:FixedPrediction",
    "z-il": "altprop.rules.energy.z_il:ZIL",
    "difference-target-propagation": (
        "altprop.rules.targets.difference_target_propagation:DifferenceTargetPropagation"
    ),
    "dual-propagation": "altprop.rules.targets.dual_propagation:DualPropagation",
    "dendritic-microcircuit": "altprop.rules.energy.dendritic_microcircuit:DendriticMicrocircuit",
    "equilibrium-propagation": "altprop.rules.energy.equilibrium_propagation:EquilibriumPropagation",
    "contrastive-hebbian": "altprop.rules.energy.contrastive_hebbian:ContrastiveHebbian",
    "generec": "altprop.rules.energy.generec:GeneRec",
    "almeida-pineda": "altprop.rules.energy.almeida_pineda:AlmeidaPineda",
    "bidirectional-predictive-coding": (
        "altprop.rules.energy.bidirectional_predictive_coding:BidirectionalPredictiveCoding"
    ),
    "backward-prediction": "altprop.rules.energy.backward_prediction:BackwardPrediction",
    "forward-backward-lateral": "altprop.rules.energy.forward_backward_lateral:ForwardBackwardLateral",
    "mixed": "altprop.rules.hebbian.mixed:Mixed",
    "three-factor": "altprop.rules.hebbian.three_factor:ThreeFactor",
    "e-prop": "altprop.rules.hebbian.e_prop:EProp",
    "local-classifier": "altprop.rules.local.local_classifier:LocalClassifier",
    "predsim": "altprop.rules.local.predsim:PredSim",
    "info-pro": "altprop.rules.local.info_pro:InfoPro",
    "deep-supervision": "altprop.rules.reference.deep_supervision:DeepSupervision",
    "checkpointed-backprop": "altprop.rules.reference.checkpointed_backprop:CheckpointedBackprop",
    "accumulated-backprop": "altprop.rules.reference.accumulated_backprop:AccumulatedBackprop",
    "hebbian-pca": "altprop.rules.hebbian.pca:HebbianPCA",
    "lateral-pca": "altprop.rules.hebbian.lateral_pca:LateralPCA",
    "hebbian-ica": "altprop.rules.hebbian.ica:HebbianICA",
    "soft-hebb": "altprop.rules.hebbian.soft_hebb:SoftHebb",
    "competitive": "altprop.rules.hebbian.competitive:CompetitiveLearning",
    "krotov-hopfield": "altprop.rules.hebbian.krotov_hopfield:KrotovHopfield",
    "bcm": "altprop.rules.hebbian.bcm:BCM",
    "foldiak": "altprop.rules.hebbian.foldiak:Foldiak",
    "stdp": "altprop.rules.hebbian.stdp:STDP",
    "soft-wta": "altprop.rules.hebbian.soft_wta:SoftWTA",
}


@cache
def places() -> Mapping[str, str]:
    """Every rule's name to "module:Class": `RULES` first, then other packages' entry points."""
    others = {point.name: point.value for point in entry_points(group="altprop.rules")}
    return others | RULES


def find(name: str) -> "type[Rule]":
    """The class of a rule; raises UsageError with the nearest name for an unknown one."""
    if name not in places():
        near = difflib.get_close_matches(name, places(), 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(places())}"
        raise UsageError(f"there is no rule {name!r}; {hint}")
    module, _, attribute = places()[name].partition(":")
    found: type[Rule] = getattr(import_module(module), attribute)
    return found
