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
    "e-prop": (
        "altprop.oracles.spiking:e_prop_equals_backprop_through_time",
        "altprop.oracles.spiking:e_prop_points_where_backprop_does",
        "altprop.oracles.spiking:online_traces_equal_traces_in_full",
    ),
    "local-classifier": (
        "altprop.oracles.local_losses:whole_net_equals_backprop",
        "altprop.oracles.local_losses:local_classifiers_equal_autograd_of_each_module",
        "altprop.oracles.local_losses:one_block_by_hand",
    ),
    "predsim": (
        "altprop.oracles.local_losses:predsim_equals_cosines_pair_by_pair",
        "altprop.oracles.local_losses:similarity_in_closed_form",
    ),
    "info-pro": (
        "altprop.oracles.local_losses:info_pro_of_one_module_equals_backprop",
        "altprop.oracles.local_losses:info_pro_equals_its_losses_written_out",
        "altprop.oracles.local_losses:a_lonely_class_is_no_contrast",
    ),
    "deep-supervision": ("altprop.oracles.local_losses:deep_supervision_equals_autograd_of_the_sum",),
    "checkpointed-backprop": ("altprop.oracles.local_losses:checkpointed_equals_backprop",),
    "accumulated-backprop": ("altprop.oracles.local_losses:accumulated_equals_backprop",),
    "hebbian-pca": (
        "altprop.oracles.fast_hebb:pca_equals_loops",
        "altprop.oracles.fast_hebb:products_equal_autograd",
        "altprop.oracles.fast_hebb:readouts_equal_closed_forms",
        "altprop.oracles.hebbian:pca_equals_eigenvectors",
    ),
    "lateral-pca": (
        "altprop.oracles.fast_hebb:lateral_pca_equals_loops",
        "altprop.oracles.hebbian:lateral_pca_equals_eigenvectors",
        "altprop.oracles.hebbian:similarity_matching_equals_the_fast_form",
    ),
    "hebbian-ica": (
        "altprop.oracles.fast_hebb:ica_equals_loops",
        "altprop.oracles.hebbian:ica_finds_sources",
        "altprop.oracles.hebbian:nonlinear_pca_finds_what_its_curve_is_for",
    ),
    "feedback-alignment": (
        "altprop.oracles.feedback:feedback_alignment_with_own_weights",
        "altprop.oracles.feedback:feedback_alignment_by_hand",
        "altprop.oracles.feedback:feedback_alignment_aligns",
    ),
    "sign-symmetry": (
        "altprop.oracles.feedback:sign_symmetry_by_hand",
        "altprop.oracles.feedback:sign_symmetry_in_convolutions",
        "altprop.oracles.feedback:signs_and_sizes",
    ),
    "kolen-pollack": (
        "altprop.oracles.feedback:kolen_pollack_with_own_weights",
        "altprop.oracles.feedback:kolen_pollack_shrinks",
    ),
    "weight-mirror": (
        "altprop.oracles.feedback:weight_mirror_with_own_weights",
        "altprop.oracles.feedback:mirrors_show_the_weights",
    ),
    "direct-feedback-alignment": (
        "altprop.oracles.feedback:direct_by_hand",
        "altprop.oracles.feedback:direct_in_a_linear_net",
        "altprop.oracles.feedback:direct_feedback_alignment_aligns",
    ),
    "sign-direct-feedback-alignment": ("altprop.oracles.feedback:signs_by_hand",),
    "direct-kolen-pollack": (
        "altprop.oracles.feedback:direct_kolen_pollack_by_hand",
        "altprop.oracles.feedback:direct_kolen_pollack_shrinks",
    ),
    "direct-random-target-projection": ("altprop.oracles.feedback:targets_know_nothing_of_the_output",),
    "mixed": ("altprop.oracles.mixed:mixed_equals_its_two_rules",),
    "soft-wta": ("altprop.oracles.competitive:soft_winner_take_all_equals_samples_one_by_one",),
    "soft-hebb": (
        "altprop.oracles.unit_lengths:soft_hebb_equals_samples_one_by_one",
        "altprop.oracles.unit_lengths:norms_of_soft_hebb_come_to_one",
        "altprop.oracles.unit_lengths:invariants_of_soft_hebb",
    ),
    "competitive": (
        "altprop.oracles.competitive:competitive_learning_equals_samples_one_by_one",
        "altprop.oracles.competitive:averages_of_competitive_learning_equal_samples_one_by_one",
        "altprop.oracles.competitive:competitive_learning_equals_its_surrogate",
        "altprop.oracles.competitive:winner_take_all_is_k_means",
        "altprop.oracles.kernels:maps_equal_samples_one_by_one",
        "altprop.oracles.kernels:maps_keep_the_order_of_the_plane",
    ),
    "krotov-hopfield": (
        "altprop.oracles.unit_lengths:krotov_hopfield_equals_samples_one_by_one",
        "altprop.oracles.unit_lengths:norms_of_krotov_hopfield",
    ),
    "stdp": (
        "altprop.oracles.spike_times:a_pair_of_spikes",
        "altprop.oracles.spike_times:all_pairs_of_spikes_one_by_one",
        "altprop.oracles.spike_times:a_batch_is_the_mean_of_its_samples",
        "altprop.oracles.spike_times:winners_neuron_by_neuron",
    ),
    "bcm": (
        "altprop.oracles.competitive:bcm_equals_samples_one_by_one",
        "altprop.oracles.competitive:bcm_selects_one_of_two_patterns",
        "altprop.oracles.kernels:bcm_with_lateral_kernels_equals_loops_over_places",
    ),
    "foldiak": (
        "altprop.oracles.foldiak:foldiak_equals_patches_one_by_one",
        "altprop.oracles.foldiak:rest_is_the_equations_own",
        "altprop.oracles.foldiak:each_unit_finds_a_bar",
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
