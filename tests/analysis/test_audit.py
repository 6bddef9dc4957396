"""The audit believes the honest and catches liars."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from altprop.analysis.audit import Finding, audit
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.reference.backprop import Backprop

TITLES = [
    "uses later blocks",
    "forward lock",
    "update lock",
    "order of updates",
    "differentiable blocks",
    "memory against depth",
    "training-only parameters",
    "same net predicts",
    "needs labels",
    "batch of one",
]


class Local(Rule):
    """Honest: each block by itself brings the mean square of its outputs to one, without labels."""

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=False,
        same_net=True,
        labels=False,
        batch_of_one=True,
    )

    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        """What the block's loss is multiplied by: here the liars peek."""
        return 1.0

    @torch.enable_grad()
    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        h = x
        for i, block in enumerate(self.net):
            factor = self.factor(i, x, y)
            h = block(h.detach())
            if f"blocks.{i}" in self.optimizers:
                loss = factor * (h.square().mean(1) - 1).square().mean()
                loss.backward()
                self.update(f"blocks.{i}")
        return {"loss": loss.detach()}


def weights(rule: Rule) -> list[Tensor]:
    return [module.weight for module in rule.net.modules() if isinstance(module, nn.Linear)]


class PeeksAtLaterWeights(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        later = weights(self)[i + 1 :]
        return 1 + later[0].detach().mean() if later else 1.0


class PeeksOnceTrained(Local):
    """On a fresh net there is nothing to see."""

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: torch.Generator) -> None:
        super().__init__(net, problem, **options)
        self.start = [w.detach().double().mean() for w in weights(self)]

    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        later = weights(self)[i + 1 :]
        return 1 + later[0].detach().mean() - self.start[i + 1] if later else 1.0


class PeeksAtThePrediction(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        with torch.no_grad():
            return 1 + self.net(x).mean()


class PeeksAtTheHead(Local):
    """The head is no block of the net, and later than all of them."""

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: torch.Generator) -> None:
        super().__init__(net, problem, **options)
        self.head = nn.Linear(4, 4)
        self.add_part("head", self.head)

    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        return 1 + self.head.weight.detach().mean()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


class SymmetricFeedback(Backprop):
    """Skips the backward pass, with the output block's own weights as "random" feedback."""

    claims = replace(Backprop.claims, later_blocks="prediction", update_lock=False, differentiable=False)

    @torch.enable_grad()
    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        states = [x]
        for block in self.net:
            states.append(block(states[-1].detach()))
        loss = nn.functional.cross_entropy(states[-1], y)
        (error,) = torch.autograd.grad(loss, states[-1], retain_graph=True)
        loss.backward()
        for state in states[1:-1]:
            if state.requires_grad:
                state.backward(error @ weights(self)[-1].detach())
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": loss.detach()}


class KeepsEverything(Local):
    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        with torch.no_grad():
            kept = [x]
            for block in self.net:
                kept.append(block(kept[-1]))
            metrics = super().learn(x, y)
        del kept
        return metrics


class KeepsWhatItMade(Local):
    """The same without autograd: the activations hang on hooks, where saved-tensor hooks see nothing."""

    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        kept: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda m, i, output: kept.append(output)) for block in self.net]
        metrics = super().learn(x, y)
        for hook in hooks:
            hook.remove()
        return metrics


class LooksAhead(Local):
    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        with torch.no_grad():
            self.net(x)
        return super().learn(x, y)


class LooksAheadTwice(Local):
    claims = replace(Local.claims, forward_lock=True)

    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        with torch.no_grad():
            self.net(x)
            self.net(x)
        return super().learn(x, y)


class UpdatesBackward(Local):
    @torch.enable_grad()
    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        h = x
        for block in self.net:
            h = block(h.detach())
            if h.requires_grad:
                (h.square().mean(1) - 1).square().mean().backward()
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": h.detach().mean()}


class NeedsSeveral(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        if len(x) == 1:
            raise ValueError("the deviation of one sample")
        return x.std(0).mean()


class OneIsNotANumber(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        return (x - x.mean(0)).square().sum() / (len(x) - 1)


class OneMovesNothing(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        return float(len(x) > 1)  # Adam's momentum moves the blocks nevertheless


class HoardsFeedback(Local):
    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: torch.Generator) -> None:
        super().__init__(net, problem, **options)
        self.register_buffer("feedback", torch.ones(3, 3))


class PredictsWithAnother(Local):
    claims = replace(Local.claims, training_only=True)

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: torch.Generator) -> None:
        super().__init__(net, problem, **options)
        self.other = copy.deepcopy(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x)


class UsesLabels(Local):
    def factor(self, i: int, x: Tensor, y: Tensor | None) -> Tensor | float:
        return 1 + y.double().mean()


class LabelsForNothing(Local):
    claims = replace(Local.claims, labels=True)


class NeedsDerivatives(Backprop):
    claims = replace(Backprop.claims, differentiable=False)


LIARS: dict[type[Rule], tuple[str, str]] = {
    PeeksAtLaterWeights: ("uses later blocks", "all"),
    PeeksOnceTrained: ("uses later blocks", "all"),
    PeeksAtThePrediction: ("uses later blocks", "prediction"),
    PeeksAtTheHead: ("uses later blocks", "all"),
    SymmetricFeedback: ("uses later blocks", "all"),
    KeepsEverything: ("memory against depth", "grows"),
    KeepsWhatItMade: ("memory against depth", "grows"),
    LooksAhead: ("forward lock", "yes"),
    LooksAheadTwice: ("update lock", "yes"),
    UpdatesBackward: ("order of updates", "backward"),
    NeedsSeveral: ("batch of one", "no (the deviation of one sample)"),
    OneIsNotANumber: ("batch of one", "no"),
    OneMovesNothing: ("batch of one", "no"),
    HoardsFeedback: ("training-only parameters", "yes (9 values"),
    PredictsWithAnother: ("same net predicts", "no (training never moved other.0.affine.weight"),
    UsesLabels: ("needs labels", "yes"),
    LabelsForNothing: ("needs labels", "no"),
    NeedsDerivatives: ("differentiable blocks", "yes"),
}


def findings(rule: type[Rule]) -> dict[str, Finding]:
    return {f.claim: f for f in audit(lambda net, problem, generator: rule(net, problem, generator=generator))}


@pytest.mark.parametrize("rule", [Backprop, Local])
def test_the_honest_hold(rule: type[Rule]) -> None:
    found = findings(rule)
    assert list(found) == TITLES
    assert [f for f in found.values() if not f.holds] == []


@pytest.mark.parametrize("liar", LIARS, ids=lambda rule: rule.__name__)
def test_liars_are_caught(liar: type[Rule]) -> None:
    claim, measured = LIARS[liar]
    finding = findings(liar)[claim]
    assert not finding.holds
    assert finding.measured.startswith(measured)


@pytest.mark.parametrize("rule", [Backprop, Local])
def test_measurements_do_not_look_at_the_claims(rule: type[Rule]) -> None:
    others = {
        "all": "none",
        "none": "all",
        "forward": "backward",
        "backward": "forward",
        "flat": "grows",
        "grows": "flat",
    }
    true = {field.name: getattr(rule.claims, field.name) for field in fields(Claims)}
    opposite = {name: not value if isinstance(value, bool) else others[value] for name, value in true.items()}
    liar = type("Liar", (rule,), {"claims": Claims(**opposite)})
    assert [f for f in findings(liar).values() if f.holds] == []


def test_a_step_that_fills_the_space_of_activations_is_no_excuse() -> None:
    class ManyPasses(SymmetricFeedback):
        def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
            noise = torch.randn(100, x.size(1), generator=self.generator, dtype=x.dtype)
            self.net(torch.cat([x, noise]))
            return super().learn(x, y)

    assert findings(ManyPasses)["uses later blocks"].measured.startswith("all")


def test_the_output_block_is_found_out() -> None:
    class FeaturesOnly(Local):
        @classmethod
        def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
            return None if net[-1].activation is not None else "it wants features"

    assert findings(FeaturesOnly)["uses later blocks"].holds

    class Impossible(Local):
        @classmethod
        def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
            return "it wants a spiking net"

    with pytest.raises(UsageError, match="spiking"):
        findings(Impossible)
