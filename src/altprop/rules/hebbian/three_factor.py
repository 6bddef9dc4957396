"""Three-factor learning: every synapse remembers what it took part in, and a third signal says what to make of it.

Frémaux & Gerstner 2016 (doi 10.3389/fncir.2015.00085); reward: Williams 1992 (REINFORCE, doi 10.1007/BF00992696);
traces: Gerstner et al. 2018 (doi 10.3389/fncir.2018.00053). With pre-synaptic activity h_{l-1}, drive
u_l = W_l h_{l-1} + b_l and h_l = f(u_l):

    E_l <- decay E_l + post_l h_{l-1}^T            eligibility, one trace a synapse (and stream of inputs)
    dW_l = rate M_l E_l                            modulated by M

    "error"   post_l = f'(u_l), M_l = -B_l e, a signal of each neuron's own through fixed random weights; output block:
              post = 1, M = -e, with e = softmax(s) - onehot(y)
    "reward"  u_l + xi is what a unit acts on, xi ~ N(0, noise^2); post_l = xi / noise^2; the output draws an action a
              from softmax(s), post = onehot(a) - softmax(s); M = r - (running mean of r), one number for all synapses

Reward 1 for the right class and 0 otherwise makes a classifier of it; `act` and `reinforce` are for everything else.
Averaged over what is drawn, a reward's update without decay is the gradient of the expected reward.

Departures from the papers:
1. Discrete time, rate neurons.
2. Without decay no trace is made: the batch's mean of M post h^T is one product.
3. Adam instead of gradient descent. The baseline is one number, a running mean over all samples.
"""

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_error, output_missing
from altprop.rules.random_feedback import feed_back, feedback_to_blocks
from altprop.rules.watch import check_units


class ThreeFactor(Rule):
    """Eligibility traces, modulated by an error or by a reward.

    For nets of linear blocks, with an output block; blocks without parameters are passed through. Prediction has no
    noise and draws nothing.

    Arguments:
        modulator: "error" or "reward".
        decay: of the traces from step to step; 0 forgets at once. With traces, the batch is `streams` rows in time.
        streams: rows of a batch, each with traces of its own; counts only with a decay.
        noise: standard deviation of xi ("reward").
        memory: of the reward's running mean.
        scale: of the feedback B_l (outputs, units), N(0, scale^2 / units) ("error").
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="grows",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )
    mean_reward: Tensor

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        modulator: str = "error",
        decay: float = 0.0,
        streams: int = 1,
        noise: float = 0.3,
        memory: float = 0.99,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        if modulator not in ("error", "reward"):
            raise UsageError(f"ThreeFactor(modulator={modulator!r}): choose 'error' or 'reward'")
        if not 0 <= decay < 1 or streams < 1 or noise <= 0 or not 0 <= memory < 1:
            raise UsageError(
                f"ThreeFactor(decay={decay}, streams={streams}, noise={noise}, memory={memory}): decay and memory must "
                "be at least 0 and below 1, there must be a stream, and noise must be positive"
            )
        super().__init__(net, problem, **options)
        self.modulator, self.decay, self.streams, self.noise, self.memory = modulator, decay, streams, noise, memory
        if modulator == "error":
            for name, b in feedback_to_blocks(self, scale).items():
                self.register_buffer(name, b)
        self.register_buffer("mean_reward", torch.zeros_like(next(net.parameters())[0, 0]))
        if decay:
            for i in (i for i, block in enumerate(net) if nets.affine(block) is not None):
                weight = self._layer(i).weight
                k, d = weight.shape
                self.register_buffer(f"trace_{i}", weight.new_zeros(streams, k, d + 1))  # the bias sees a 1
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "it learns classes or actions; choose another rule for a regression"
        if any(isinstance(m, nets.LeakyIntegrateAndFire | nets.LeakyRate | nets.Cell) for m in net.modules()):
            return "neurons that live in time have a factor at every time step, and it knows one; choose another rule"
        for i, block in enumerate(net):
            if nets.affine(block) is None and not any(True for _ in block.parameters()):
                continue
            bare = not isinstance(block, nets.Block) or (block.norm is None and block.pool is None)
            if type(nets.affine(block)) is not nn.Linear or not bare:
                return (
                    f"block {i} is not a linear layer with an activation or none, and a neuron's factor is its own "
                    "slope; build the net with altprop.nets.mlp"
                )
        return output_missing(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Int[Tensor, "batch"] | None) -> Metrics:
        assert y is not None
        if self.modulator == "reward":
            return self.reinforce((self.act(x) == y).to(x.dtype))
        scores = self._see(x)
        loss, e = output_error(scores, y, self.problem.kind)
        self._remember()
        for i in self._seen:
            self._change(i, e.neg() if i == len(self.net) - 1 else -feed_back(e, self.get_buffer(f"feedback_{i}")))
        return {"loss": loss}

    @torch.no_grad()
    def act(self, x: Shaped[Tensor, "batch ..."]) -> Int[Tensor, "batch"]:
        """Draw an action for each input; what every synapse did for it stays until `reinforce`."""
        p, last = self._see(x).softmax(1), len(self.net) - 1
        action = torch.multinomial(p.cpu(), 1, generator=self.generator).to(x.device)
        if last in self._seen:
            drawn = torch.zeros_like(p).scatter_(1, action, 1.0)
            self._seen[last] = self._seen[last][0], drawn - p
        self._remember()
        return action.squeeze(1)

    @torch.no_grad()
    def reinforce(self, reward: Float[Tensor, "batch"]) -> Metrics:
        """Learn from the reward of the last `act`, and, with a decay, of those before it."""
        if not self._seen:
            raise UsageError("ThreeFactor.reinforce(reward): nothing was done yet; call act(x) first")
        surprise = reward - self.mean_reward
        for i in self._seen:
            self._change(i, surprise.unsqueeze(1))
        self.assign(self.mean_reward, self.mean_reward.lerp(reward.mean(), 1 - self.memory))
        return {"loss": -reward.mean()}

    def forget(self) -> None:
        """Clear all traces, at the beginning of an episode."""
        self._seen.clear()
        for name, buffer in self.named_buffers():
            if name.startswith("trace_"):
                buffer.zero_()

    def _see(self, h: Tensor) -> Float[Tensor, "batch outputs"]:
        """The scores; and for every block that learns, its input and its post-synaptic factor."""
        if self.decay and len(h) != self.streams:
            raise UsageError(
                f"ThreeFactor(decay={self.decay}, streams={self.streams}): the batch has {len(h)} rows, and each "
                "stream has a trace of its own; give one row a stream, in time"
            )
        self._seen.clear()
        for i, block in enumerate(self.net):
            if nets.affine(block) is None:
                h = block(h)
                continue
            before, u = h, self._layer(i)(h)
            h, post = self._respond(block, u, output=i == len(self.net) - 1)
            check_units(self, i, before, h)
            if f"blocks.{i}" in self.optimizers:
                self._seen[i] = before, post
        return h

    def _respond(self, block: nn.Module, u: Float[Tensor, "batch units"], output: bool) -> tuple[Tensor, Tensor]:
        """What the block gives, and its post-synaptic factor."""
        if output:
            return u, torch.ones_like(u)
        if self.modulator == "reward":
            xi = torch.randn(u.shape, generator=self.generator, dtype=u.dtype).to(u.device)
            return nets.after(block, u + self.noise * xi), xi / self.noise
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            h = nets.after(block, u)
        (slope,) = torch.autograd.grad(h, u, torch.ones_like(h))
        return h.detach(), slope

    def _remember(self) -> None:
        """decay E + post h^T, for each stream, where there are traces."""
        for i, (pre, post) in self._seen.items() if self.decay else ():
            row = torch.cat([pre, torch.ones_like(pre[:, :1])], 1)
            self.get_buffer(f"trace_{i}").mul_(self.decay).baddbmm_(post.unsqueeze(2), row.unsqueeze(1))

    def _change(self, i: int, m: Float[Tensor, "batch #units"]) -> None:
        """One update by M E, mean over the batch."""
        layer = self._layer(i)
        if self.decay:
            change = (m.unsqueeze(2) * self.get_buffer(f"trace_{i}")).mean(0)
            weight, bias = change[:, :-1], change[:, -1]
        else:
            pre, post = self._seen[i]
            y = (m * post).div_(len(pre))
            weight, bias = y.T @ pre, y.sum(0)
        if layer.weight.requires_grad:
            layer.weight.grad = weight.neg()
        if layer.bias is not None and layer.bias.requires_grad:
            layer.bias.grad = bias.neg()
        self.update(f"blocks.{i}")

    def _layer(self, i: int) -> nn.Linear:
        layer = nets.affine(self.net[i])
        assert isinstance(layer, nn.Linear)
        return layer
