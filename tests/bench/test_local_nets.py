import pytest
import torch

from altprop import rules
from altprop.bench.compare import parameters, unsupported
from altprop.bench.contender import Setting, fields
from altprop.bench.contenders import contender
from altprop.tasks import load

DIGITS = load("digits")


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((1, 28, 28), (128, 220, 512), [(128, 10, 6), (220, 2, 1), (512, 2, 1)]),  # Hinton's
        ((3, 32, 32), (192, 192), [(192, 11, 7), (192, 2, 1)]),
        ((1, 8, 8), (5,), [(5, 3, 1)]),
        ((1, 28, 28), (2, 2, 2, 2, 2, 2), [(2, 10, 6), (2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 1, 1), (2, 1, 1)]),
        ((3, 1, 5), (4,), [(4, 1, 1)]),
    ],
)
def test_fields_reach_the_images_edge(shape, channels, expected):
    found = fields(shape, channels)
    assert found == expected
    _, kernel, stride = found[0]
    assert all((side - kernel) % stride == 0 for side in shape[1:])


@pytest.mark.parametrize("name", rules.places())
def test_every_rule_trains_a_local_net_or_says_why_not(name):
    setting = Setting("digits", DIGITS.problem, "local", 6, 2)
    chosen = contender(name, setting)
    reason = unsupported(chosen, setting, 0)
    if reason is not None:
        assert len(reason) > 10
        return
    rule = chosen.build(setting, 0)
    x, y = DIGITS.train.batch(slice(0, 32))
    before = rule(x).detach().clone()
    for _ in range(2):
        assert torch.isfinite(rule.step(x, y)["loss"])
    rule.finish()
    assert rule(x).shape == (32, 10)
    assert not torch.equal(rule(x), before)


def test_parameters_are_counted_without_building_the_net():
    setting = Setting("digits", DIGITS.problem, "local", 6, 2)
    built = contender("backprop", setting).network(setting, 0)
    assert parameters(setting) == sum(p.numel() for p in built.parameters())
    assert parameters(setting) == 36 * 6 * (9 + 1) + 25 * 6 * (24 + 1) + 150 * 10 + 10
