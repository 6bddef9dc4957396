"""InfoPro: how it cuts the net, its weights and decoders, and what it refuses."""

from functools import partial

import pytest
import torch
from torch import Tensor

from altprop import nets
from altprop.analysis.audit import audit
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.local.heads import Decoder
from altprop.rules.local.info_pro import InfoPro
from steps import gradients, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)), torch.arange(shape[0]) % 4


def rule_on(depth: int, **options: object) -> InfoPro:
    return InfoPro(nets.mlp([6] + [8] * depth, classes=4), optimizer=SGD, **options)


@pytest.mark.parametrize(
    ("depth", "modules", "ends"), [(2, 2, [0, 2]), (4, 2, [1, 4]), (4, 3, [0, 2, 4]), (3, 4, [0, 1, 2, 3]), (4, 1, [4])]
)
def test_modules_have_equally_many_blocks_within_one(depth: int, modules: int, ends: list[int]) -> None:
    rule = rule_on(depth, modules=modules)
    assert [module[-1] for module in rule.ranges] == ends
    assert list(rule.heads) == [str(end) for end in ends[:-1]]


def test_weights_move_in_equal_steps_from_the_first_module_to_the_last_before_the_output() -> None:
    options = {"reconstruction": (3.0, 1.0), "discrimination": (0.0, 4.0)}
    rule = rule_on(3, modules=4, **options)
    assert [rule.weights(i) for i in range(3)] == [(3.0, 0.0), (2.0, 2.0), (1.0, 4.0)]
    assert rule_on(3, modules=2, **options).weights(1) == (3.0, 0.0)


def test_more_modules_need_less_memory() -> None:
    x, y = batch(64, 20)

    def build(depth: int, modules: int) -> InfoPro:
        return InfoPro(nets.mlp([20] * depth, classes=4), modules=modules)

    (_, _, whole), (_, _, half), (_, _, quarter) = (
        peaks(partial(build, modules=modules), x, y) for modules in (1, 2, 4)
    )
    assert half < 0.85 * whole and quarter < 0.85 * half


def test_modules_of_one_block_need_no_derivative_through_two_and_their_memory_is_flat() -> None:
    findings = audit(lambda net, problem, g: InfoPro(net, problem, generator=g, modules=len(net)))
    assert not [finding for finding in findings if not finding.holds]


@pytest.mark.parametrize("options", [{"modules": 1}, {"loss": "contrastive"}], ids=["whole net", "contrastive"])
def test_the_claims_hold_for_other_options(options: dict[str, object]) -> None:
    findings = audit(lambda net, problem, g: InfoPro(net, problem, generator=g, **options))
    assert not [finding for finding in findings if not finding.holds]


def test_decoders_give_the_shape_of_the_input() -> None:
    g = torch.Generator().manual_seed(0)
    for shape, image in (((8, 4, 3), (2, 9, 7)), ((5,), (2, 4, 4)), ((5,), (6,)), ((3, 4), (6,)), ((3, 4), (2, 6))):
        decoder = Decoder(shape, image, g)
        assert decoder(torch.zeros(2, *shape)).shape == (2, *image)
        assert any(p.dim() == 4 for p in decoder.parameters()) == (len(shape) == len(image) == 3)


def test_only_the_weighted_loss_learns() -> None:
    x, y = batch(8, 6)
    for weights, silent in (({"reconstruction": (0.0, 0.0)}, "decoder"), ({"discrimination": (0.0, 0.0)}, "readout")):
        found = gradients(rule_on(2, **weights), x, y)
        assert {name for name, g in found.items() if not g.any()} == {n for n in found if silent in n}
        assert bool(found["net.0.affine.weight"].any())


def test_regression_is_discriminated_by_its_own_loss() -> None:
    rule = InfoPro(nets.mlp([6, 8], classes=2), Problem((6,), 2, "regression"), optimizer=SGD)
    x, _ = batch(8, 6)
    assert bool(gradients(rule, x, torch.randn(8, 2))["heads.0.readout.2.weight"].any())


def test_reasons_why_not() -> None:
    for modules in (0, 4):
        with pytest.raises(UsageError, match="the net has 3 blocks, take from 1 to 3"):
            rule_on(2, modules=modules)
    with pytest.raises(UsageError, match="loss='other' is not known"):
        rule_on(2, loss="other")
    with pytest.raises(UsageError, match="a regression has no classes"):
        InfoPro(nets.mlp([6, 8], classes=2), Problem((6,), 2, "regression"), loss="contrastive")
    for wrong in ({"reconstruction": (-1.0, 1.0)}, {"discrimination": (1.0, -1.0)}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match="must not be below 0"):
            rule_on(2, **wrong)
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        InfoPro(nets.mlp([6, 4]), Problem((6,), 4))
