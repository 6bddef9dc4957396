"""Answer first, then learn: what a rule says about samples before it learns from them, and when it has said so.

Accuracy of such answers is prequential (Dawid 1984, doi 10.2307/2981683; Gama, Sebastião & Rodrigues 2013,
doi 10.1007/s10994-012-5320-9). A learning pass often computes the scores on its way, before what they came through has
learned: then the answer is overheard there, and costs no pass of its own. Whether it can be, is measured and not
claimed: in the first steps the net predicts beforehand, and what is overheard must be the same, to the bit or to
rounding (a product over more rows at once adds up in another order). Dropout, batch statistics and labels in the input
make it differ, and so do updates that come first; such a rule answers in two passes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from altprop.bench.hearing import ANSWER, Hearing, Voice, gap, voices
from altprop.bench.meter import synchronise
from altprop.errors import UsageError
from altprop.rule import Metrics, Rule

PROBES = 20
"""Steps at the start in which the net predicts and the rule is listened to, both."""
AGAIN = 1000
"""Every so many steps this is done once more."""
ROUNDING = 256
"""How far an answer may lie from the prediction: so many units in the last place of the largest score. What one update
changes in the first steps is thousands of times more."""


@dataclass(frozen=True)
class Answer:
    """What was said about one batch before it was learned from.

    scores: of the net as it was before this step; y: the labels that came with the batch; metrics: the step's.
    delays: from the batch's arrival to "answer", and to the update of each part ("blocks.0", "head", ...), in seconds.
    one_pass: the learning pass gave the answer. checked: the net predicted beside it, so that the delays mean nothing.
    """

    scores: Float[Tensor, "batch outputs"]
    y: Shaped[Tensor, "batch ..."] | None
    metrics: Metrics
    delays: Mapping[str, float]
    one_pass: bool
    checked: bool

    @property
    def right(self) -> Bool[Tensor, " batch"]:
        """Which answers are right, where the labels are classes."""
        assert self.y is not None
        return self.scores.argmax(1) == self.y


class Answering:
    """A rule that answers each batch before it learns from it.

    Arguments:
        rule: it is not changed, and can be used without this at any time.
        overhear: False: always answer in a pass before the learning pass.

    Attributes:
        voice: where the answer is overheard; None where it is not, or not known yet.
        gap: how far it ever lay from the prediction, as a share of the largest score; 0.0: always the same bits.
    """

    def __init__(self, rule: Rule, *, overhear: bool = True) -> None:
        self.rule = rule
        self.voice: Voice | None = None
        self.gap = 0.0
        self._voices: dict[Voice, float] | None = None
        self._modules = dict(rule.named_modules())
        self._device = next((p.device for p in rule.parameters()), torch.device("cpu"))
        self._steps, self._probes = 0, PROBES if overhear else 0

    @property
    def settled(self) -> bool:
        """Whether it is known how the rule answers."""
        return self._steps >= self._probes

    def step(
        self,
        x: Shaped[Tensor, "batch ..."],
        y: Shaped[Tensor, "batch ..."] | None = None,
        now: Callable[[], float] | None = None,
    ) -> Answer:
        """Answer, then learn. now: what delays are counted in, in the place of seconds.

        Raises UsageError if the rule, all of a sudden, says nothing where it used to answer.
        """
        probing = not self.settled
        checked = probing or (self.voice is not None and (self._steps + 1) % AGAIN == 0)
        names = self._modules if probing else self.voice.modules if self.voice else ()
        hearing = Hearing((len(x), self.rule.problem.outputs), now or self._clock, self.voice)
        scores = None
        with hearing.of(self.rule, {name: self._modules[name] for name in names}):
            if checked or self.voice is None:
                scores = self._predict(x)
                hearing.note(ANSWER)
                hearing.said.clear()
            metrics = self.rule.step(x, y)
        self._steps += 1
        one_pass = scores is None
        if scores is None:
            scores = self._heard(hearing)
        elif probing:
            self._narrow(hearing, scores)
        elif checked:
            self._confirm(hearing, scores)
        return Answer(scores, y, metrics, hearing.delays, one_pass, checked)

    def _clock(self) -> float:
        synchronise(self._device)
        return time.perf_counter()

    @torch.no_grad()
    def _predict(self, x: Tensor) -> Tensor:
        self.rule.eval()
        return self.rule.forward(x).detach().clone()

    def _heard(self, hearing: Hearing) -> Tensor:
        scores = None if self.voice is None else hearing.total(self.voice)
        if scores is None:
            raise UsageError(
                f"{type(self.rule).__name__} gave no answer in step {self._steps:,}, though its learning pass always "
                "gave one before; stream it with overhear=False"
            )
        return scores

    def _narrow(self, hearing: Hearing, scores: Tensor) -> None:
        """Keep the voices that have always said what the net predicted; choose the nearest at the end."""
        if self._voices is None:
            self._voices = dict.fromkeys(voices(hearing, self._modules), 0.0)
        gaps = {voice: max(before, gap(hearing.total(voice), scores)) for voice, before in self._voices.items()}
        self._voices = {voice: found for voice, found in gaps.items() if found <= tolerance(scores)}
        if self.settled and self._voices:
            self.voice = min(self._voices, key=self._voices.__getitem__)
            self.gap = self._voices[self.voice]

    def _confirm(self, hearing: Hearing, scores: Tensor) -> None:
        """Go over to two passes if the voice does not say any more what the net predicts."""
        assert self.voice is not None
        found = gap(hearing.total(self.voice), scores)
        if found <= tolerance(scores):
            self.gap = max(self.gap, found)
        else:
            self.voice = None


def tolerance(scores: Tensor) -> float:
    return ROUNDING * torch.finfo(scores.dtype).eps


def unfit(rule: Rule, size: int) -> str | None:
    """Why the rule cannot learn from batches of this size, in words; None if it can."""
    if size > 1:
        return None
    if not rule.claims.batch_of_one:
        return "it compares the samples of a batch with each other, and a batch of one has no other; take a larger one"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in rule.modules()):
        return "batch normalisation has no statistics of a batch of one; take a larger one, or layer normalisation"
    return None
