"""The contract that every learning rule keeps.

A rule is an `nn.Module` that owns a network (an `nn.Sequential` of blocks), whatever else it needs
(feedback weights, a head) and one optimizer per trainable part. A rule writes `learn`; users call `step`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import Diverged, UsageError

Metrics = dict[str, Tensor]
"""What a step reports: 0-dimensional detached tensors by name; "loss" is there for every rule. Rules that relax to a
tolerance add "unsettled", 1 where they did not reach it and 0 where they did; the table says so where it was often."""

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OptimizerSpec = OptimizerFactory | Mapping[str, OptimizerFactory]
Schedule = Callable[[float], float]

NO_DERIVATIVE = (
    "this rule learns through the derivative of what a block gives, and an activation on the way has none; give it one "
    "(derivative=True of spiking neurons, straight_through=True of steps), or take a rule that needs none, "
    "SignalPropagation for one"
)
ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3, fused=True)


@dataclass(frozen=True)
class Problem:
    """What is to be learned.

    input_shape: one sample's shape, e.g. (784,) or (1, 28, 28); a None in it means "any size".
    outputs: number of classes, or of regression targets.
    """

    input_shape: tuple[int | None, ...]
    outputs: int
    kind: Literal["classification", "regression"] = "classification"


@dataclass(frozen=True)
class Claims:
    """What a rule says about itself; `altprop.analysis.audit` tries to catch each one lying.

    later_blocks: what a block's update takes from later blocks. "none"; "prediction": only the net's output
        (an error, negatives sampled from it); "all": their weights or states too.
    forward_lock: the first block's update waits until the forward pass has reached the last block.
    update_lock: after the forward pass has reached the last block, later blocks' parameters are read again
        before the first block can be updated (a backward pass, a relaxation).
    order: the order in which the blocks' parameters are written in one step.
    differentiable: every block between a trainable one and the output must have a derivative.
    memory: peak bytes of a step against depth, parameters and optimizer state excluded: "flat" or "grows".
    training_only: training holds parameters or buffers that prediction never reads.
    same_net: every weight that a prediction reads is one that training moved.
    labels: training needs labels.
    batch_of_one: it learns from batches of one sample.
    """

    later_blocks: Literal["none", "prediction", "all"]
    forward_lock: bool
    update_lock: bool
    order: Literal["forward", "backward", "mixed"]
    differentiable: bool
    memory: Literal["flat", "grows"]
    training_only: bool
    same_net: bool
    labels: bool
    batch_of_one: bool


class Rule(nn.Module):
    """Base class of all learning rules.

    Arguments:
        net: blocks in a row. The rule owns it and never re-initialises it.
        problem: may be left out where the net ends in an output block (a linear block without activation).
        optimizer: one factory from parameters to a `torch.optim` optimizer, or a mapping from a part's name
            ("blocks.0", "head") or its first word ("blocks") to a factory.
        schedule: from progress in [0, 1] to a factor for every learning rate.
        generator: where the rule draws its random numbers (on the CPU); a fresh one with seed 0 if left out.

    Raises UsageError if the rule does not support the net, or if blocks share a parameter.
    """

    claims: Claims
    ties: ClassVar[bool] = False
    """Whether blocks may share a parameter (it then belongs to the first part that has it)."""

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        optimizer: OptimizerSpec = ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.problem = problem if problem is not None else infer_problem(net)
        reason = self.refuses(net, self.problem)
        if reason is not None:
            raise UsageError(f"{type(self).__name__} cannot train this net: {reason}")
        self.net = net
        self.schedule = schedule
        self.generator = generator if generator is not None else torch.Generator().manual_seed(0)
        self.progress = 0.0
        self._batches = 0
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._host: tuple[Rule, str] | None = None
        self._optimizer = optimizer
        self._rates: dict[str, list[float]] = {}
        for i, block in enumerate(net):
            self.add_part(f"blocks.{i}", block)

    def add_part(self, name: str, module: nn.Module) -> None:
        """Give the trainable parameters of `module` their own optimizer, under `name`; none if it has none."""
        owned = {p for o in self.optimizers.values() for group in o.param_groups for p in group["params"]}
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.ties and owned.intersection(parameters):
            raise UsageError(
                f"{type(self).__name__}: {name} shares a parameter with an earlier part, and this rule updates "
                "each part by itself; give every part its own parameters, or train with Backprop"
            )
        parameters = [p for p in parameters if p not in owned]
        if parameters:
            self.optimizers[name] = self._factory(name)(parameters)
            self._rates[name] = [group["lr"] for group in self.optimizers[name].param_groups]

    def host(self, word: str, rule: "Rule") -> None:
        """Take over another rule, trained inside this one: its parts become this rule's, under "word/part"."""
        self.optimizers |= {f"{word}/{part}": optimizer for part, optimizer in rule.optimizers.items()}
        self._rates |= {f"{word}/{part}": rates for part, rates in rule._rates.items()}
        rule._host = self, word  # in a tuple, so that it is no submodule

    def _factory(self, part: str) -> OptimizerFactory:
        if not isinstance(self._optimizer, Mapping):
            return self._optimizer
        for key in (part, part.split(".")[0]):
            if key in self._optimizer:
                return self._optimizer[key]
        raise UsageError(
            f"{type(self).__name__}: no optimizer for the part {part!r} among {sorted(self._optimizer)}; "
            f"add one under {part.split('.')[0]!r}"
        )

    # What each rule writes.

    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        """Learn from one batch; `step` has checked it."""
        raise TypeError(f"{type(self).__name__} has no learn(x, y): every rule writes its own")

    def forward(self, x: Tensor) -> Tensor:
        """Predict: x (batch, *input_shape) to scores (batch, classes) or the regression output."""
        scores: Tensor = self.net(x)
        return scores

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Several ways to predict from one training run, by name."""
        return {"": self.forward}

    def finish(self) -> None:
        """Called before an evaluation, on the clock; never changes the course of training."""

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        """Why this rule cannot train this net, in words; None if it can."""
        return None

    # What users call.

    @final
    @classmethod
    def refuses(cls, net: nn.Sequential, problem: Problem) -> str | None:
        """`supports`; black boxes where the rule takes a derivative through every block; and a net whose blocks do not
        fit together, or give something else than the problem's outputs."""
        if any(isinstance(m, nets.BlackBox) and m.closed for m in net.modules()) and cls.claims.differentiable:
            return (
                "a black box in it has no derivative, and this rule takes one through every block; choose a rule that "
                "does not (`altprop list` says which), or give the box straight_through=True"
            )
        return cls.supports(net, problem) or misfit(net, problem)

    @final
    def step(self, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "labels ..."] | None = None) -> Metrics:
        """Learn from one batch: x (batch, *input_shape) and labels y (batch,), int64."""
        check_batch(self, x, y)
        self._batches += 1
        self.train()
        try:
            metrics = self.learn(x, y)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise UsageError(f"{type(self).__name__}: {NO_DERIVATIVE}") from error
        if self.looking:
            check_loss(self, metrics["loss"])
        return metrics

    @property
    def looking(self) -> bool:
        """Whether this batch, the 1st, 2nd, 4th, 8th, ..., is one at which a rule looks whether all is well."""
        batches = self._batches if self._host is None else self._host[0]._batches
        return batches & (batches - 1) == 0

    # The only two writers of parameters.

    def update(self, part: str) -> None:
        """Step the part's own optimizer on the gradients that lie in `.grad`, then free them.

        Raises UsageError if there are none: the part would stand still, and nobody be told.
        """
        if self._host is not None:
            rule, word = self._host
            rule.update(f"{word}/{part}")
            return
        optimizer = self.optimizers[part]
        if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
            raise UsageError(f"{type(self).__name__}: nothing reaches the part {part!r}; {NO_DERIVATIVE}")
        if self.schedule is not None:
            factor = self.schedule(self.progress_of(part))
            for group, rate in zip(optimizer.param_groups, self._rates[part], strict=True):
                group["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def progress_of(self, part: str) -> float:
        """Where a part stands in its own training; a rule that trains one part after another says more."""
        return self.progress

    @torch.no_grad()
    def assign(self, parameter: Tensor, value: Tensor) -> None:
        """Write a value as it is (closed forms, populations): W - (W - T) is not T in floating point."""
        if self._host is not None:
            self._host[0].assign(parameter, value)
            return
        parameter.copy_(value)

    # Checkpoints, and moving to another device or dtype.

    def training_state(self) -> dict[str, Any]:
        """Everything that the next step depends on: {"tensors": {name: Tensor}, "json": {...}}."""
        tensors = {f"rule/{k}": v for k, v in self.state_dict().items()}
        tensors["generator"] = self.generator.get_state()
        groups: dict[str, Any] = {}
        for part, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            for index, entries in state["state"].items():
                for key, value in entries.items():
                    if value is not None:
                        tensors[f"optimizer/{part}/{index}/{key}"] = torch.as_tensor(value)
            groups[part] = [_plain(group) for group in state["param_groups"]]
        return {
            "tensors": {k: v.detach().clone() for k, v in tensors.items()},
            "json": {"rule": type(self).__name__, "progress": self.progress, "groups": groups},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a `training_state`; raises UsageError if it belongs to another rule or net."""
        tensors, json = state["tensors"], state["json"]
        mine = {k: v.shape for k, v in self.state_dict().items()}
        theirs = {k.removeprefix("rule/"): v.shape for k, v in tensors.items() if k.startswith("rule/")}
        if json["rule"] != type(self).__name__ or mine != theirs or set(json["groups"]) != set(self.optimizers):
            raise UsageError(
                f"the training state of a {json['rule']} with other parts or shapes cannot be loaded into this "
                f"{type(self).__name__}; build the rule with the same net and hyperparameters"
            )
        self.load_state_dict({k: tensors[f"rule/{k}"] for k in mine})
        self.generator.set_state(tensors["generator"].cpu())
        self.progress = json["progress"]
        for part, optimizer in self.optimizers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimizer/{part}/"):
                    index, key = name.removeprefix(f"optimizer/{part}/").split("/")
                    entries.setdefault(int(index), {})[key] = value.clone()
            optimizer.load_state_dict({"state": entries, "param_groups": json["groups"][part]})

    def _apply(self, fn: Any, recurse: bool = True) -> "Rule":
        """`.to()` and its kin: what the optimizers remember moves with the parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for optimizer in self.__dict__.get("optimizers", {}).values():
            optimizer.load_state_dict(optimizer.state_dict())  # casts its state to the parameters' place
        return self


def misfit(net: nn.Sequential, problem: Problem) -> str | None:
    """Why blocks that end in an output block do not fit together, or do not give the problem's outputs, in words. (Nets
    without one may take more than a sample: with its label, say.)"""
    if None in problem.input_shape or nets.output_layer(net) is None:
        return None
    sizes = passage(net, problem)
    if isinstance(sizes, str):
        return sizes
    if sizes[-1] == (problem.outputs,):
        return None
    hint = "; put nets.MeanOverTime() before the output block" if len(sizes[-1]) == 2 else ""
    return f"its output block gives {sizes[-1]} for a sample, and the problem has {problem.outputs} outputs{hint}"


def passage(net: nn.Sequential, problem: Problem) -> list[tuple[int | None, ...]] | str:
    """A sample's shape before the first block and behind each; or why it does not go through, in words."""
    try:
        return [problem.input_shape, *nets.shapes(net, problem.input_shape)]
    except RuntimeError as error:
        return f"a sample of shape {problem.input_shape} does not go through its blocks ({error})"


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group as JSON can hold it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in group.items()}


def infer_problem(net: nn.Sequential) -> Problem:
    """The problem that a net with an output block solves: classification into its outputs."""
    output = nets.output_layer(net)
    if output is None:
        raise UsageError(
            "the net does not end in an output block (a linear block without activation), so the problem must be "
            "given: problem=altprop.Problem(input_shape, outputs)"
        )
    return Problem(nets.input_shape(net), output.out_features)


def check_batch(rule: Rule, x: Tensor, y: Tensor | None) -> None:
    """Raise UsageError unless (x, y) is a batch that the rule's problem allows."""
    check_inputs(rule, x)
    if y is None:
        if rule.claims.labels:
            raise UsageError(f"{type(rule).__name__} learns from labels: call step(x, y)")
        return
    if len(y) != len(x):
        raise UsageError(f"step(x, y): {len(x)} inputs but {len(y)} labels")
    if rule.problem.kind == "classification":
        check_labels(y, rule.problem.outputs)
    elif y.shape != (len(x), rule.problem.outputs):  # (batch,) would broadcast to (batch, batch) in silence
        raise UsageError(
            f"step(x, y): y has shape {tuple(y.shape)}, the problem's targets are (batch, {rule.problem.outputs}); "
            "reshape them, e.g. y[:, None] for one output"
        )


def check_loss(rule: Rule, loss: Tensor) -> None:
    """Raise Diverged if the loss is no longer a number."""
    if bool(loss.isfinite()):
        return
    rates = [float(group["lr"]) for optimizer in rule.optimizers.values() for group in optimizer.param_groups]
    raise Diverged(
        f"{type(rule).__name__}: the loss is {float(loss)} after {rule._batches:,} batches, because weights grew "
        f"without bound; start anew with rates below {max(rates, default=0.0):.3g}, the highest, or with smaller inputs"
    )


def check_inputs(rule: Rule, x: Float[Tensor, "batch ..."] | Tensor) -> None:
    shape = rule.problem.input_shape
    fits = x.dim() == len(shape) + 1 and all(s in (None, n) for n, s in zip(x.shape[1:], shape, strict=True))
    if not fits:
        hint = "; flatten it with x.flatten(1)" if x[:1].numel() == (shape[0] if len(shape) == 1 else -1) else ""
        raise UsageError(f"step(x): x has shape {tuple(x.shape)}, the net takes (batch, {_sizes(shape)}){hint}")
    if len(x) == 0:
        raise UsageError("step(x): the batch is empty; drop batches of zero samples")
    expected = next((p.dtype for p in rule.parameters() if p.is_floating_point()), x.dtype)
    if x.dtype != expected:
        raise UsageError(f"step(x): x is {x.dtype}, the net is {expected}; convert one with .to({expected})")
    if x.numel() and not bool(torch.stack(torch.aminmax(x)).isfinite().all()):  # keeps nothing of x's size
        raise UsageError("step(x): x holds NaN or infinite values; clean or drop those samples")


def check_labels(y: Tensor, classes: int) -> None:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.dim() != 1:
        raise UsageError(
            f"step(x, y): labels must be integers of shape (batch,), not {y.dtype} of shape {tuple(y.shape)}; "
            "for one-hot labels pass y.argmax(1)"
        )
    low, high = (int(v) for v in torch.aminmax(y))
    if low < 0 or high >= classes:
        raise UsageError(
            f"step(x, y): labels run from {low} to {high}, but the problem has classes 0 to {classes - 1}; "
            "renumber them or build the net with more classes"
        )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return ", ".join("any" if s is None else str(s) for s in shape)
