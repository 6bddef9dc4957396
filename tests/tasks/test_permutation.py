import torch

from altprop.tasks import order

PINNED = [6, 2, 7, 8, 9, 3, 4, 5, 0, 1]


def test_every_sample_once() -> None:
    assert sorted(order(1000, 3, 7).tolist()) == list(range(1000))


def test_is_a_pure_function_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(order(100, 1, 2), order(100, 1, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_seed_and_epoch_each_change_it_and_are_not_summed() -> None:
    orders = {tuple(order(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_is_the_one_that_stored_results_were_made_with() -> None:
    assert order(10, 0, 0).tolist() == PINNED
