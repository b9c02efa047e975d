"""A term: one summand of the loss. Which likelihood, of which samples, how weighted.

What may stand in a field is what the tables of rl/ hold; a name that is in none of
them, a number out of range or a contradiction is refused when the term is built. This
file and the tables import neither jax nor numpy: configs are made of terms.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

from pxy import fields
from pxy.fields import Count, NonNegative, Positive, Share
from pxy.rl import advantage, choose, context, reduction, surrogate

if TYPE_CHECKING:  # the names are found by running, so here they are any
  Advantage: TypeAlias = str
  Clip: TypeAlias = str
  Context: TypeAlias = str
  Control: TypeAlias = str
  Kl: TypeAlias = str
  Reduction: TypeAlias = str
  Tis: TypeAlias = str
else:
  Advantage = Literal[tuple(advantage.ADVANTAGES)] | str
  Clip = Literal[tuple(surrogate.SURROGATES)] | str
  Context = Literal[tuple(context.CONTEXTS)]
  Control = Literal[tuple(advantage.CONTROLS)]
  Kl = Literal[("none", *surrogate.KLS)]
  Reduction = Literal[tuple(reduction.REDUCTIONS)]
  Tis = Literal[("none", *surrogate.TIS)]


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand of the loss: which likelihood, of which samples, how weighted."""

  space: Literal["conditional", "marginal"] = "conditional"
  """Which likelihood moves: log P(y|x) or log P(y)."""
  context: Context = "start"
  """What stands in the prompt's place in the marginal space: the chat start token, the
  document separator, another prompt of the batch, a mean over `copies` prompts, ...;
  see rl/context.py."""
  copies: Count = 4
  """Prompts in the `mixture` context."""
  select: Literal["all", "negative", "positive"] = "all"
  """Sign filter. The loss is normalised over the selected samples only."""
  negative: Literal["advantage", "reward"] = "advantage"
  """What is negative: A < 0 (all-wrong groups give nothing), or every reward <= 0
  (all-wrong groups included, with A = -1)."""
  advantage: Advantage = "grpo"
  """How rewards become advantages: the equations stand in rl/advantage.py; or a
  function of your own, as path/to/file.py:name or package.module:name."""
  lam: NonNegative = 0.1
  """w-reinforce: weight of correct samples; asymmetric: of those above the mean."""
  k: Count = 4
  """pass-at-k: of so many responses one must be right."""
  control: Control = "none"
  """A control of the method: what it does without knowing right from wrong; see
  rl/advantage.py."""
  confidence: bool = False
  """Negative advantages count as much as the model is sure of the response: times the
  geometric mean of its tokens' probabilities before the update (arXiv 2605.07137)."""
  coef: Positive = 1.0
  """Weight of the term in the loss."""
  clip: Clip = "ppo"
  """The surrogate, of rl/surrogate.py or a function of your own; none is REINFORCE. All
  of pxy's agree while the policy is the sampler's."""
  clip_low: Share = 0.2
  """The ratio to the old policy counts down to 1 - clip_low, ..."""
  clip_high: NonNegative = 0.2
  """... and up to 1 + clip_high."""
  dual_clip: float | None = 10.0
  """ppo: bound on ratio * |A| for negative advantages; None switches it off."""
  reduction: Reduction = "token-mean"
  """How tokens become one loss: a mean over tokens, over sequences (of their means or
  sums), or over sequences of a fixed length; see rl/reduction.py."""
  constant: Positive = 1024.0
  """The fixed length of the `constant` reduction."""
  kl: Kl = "none"
  """KL estimator against the start-of-run model, conditional space only. There is no
  k1, whose expected gradient is zero; it is reported, as actor/kl_k1."""
  kl_coef: NonNegative = 0.0
  """Weight of the KL estimate."""
  tis: Tis = "none"
  """Importance weights p / p_sampler for a sampler that differs from the trainer, of
  tokens or whole sequences, limited to tis_cap, or 0 outside the bounds (-mask). p is
  conditional in both spaces: marginal terms need a scoring pass for it."""
  tis_cap: Positive = 2.0
  """Largest importance weight."""
  tis_floor: NonNegative = 0.5
  """-mask: smallest importance weight."""

  def __post_init__(self):
    """Refuses what is misspelt, out of range, or contradicts itself; Error says why."""
    fields.need(
      self.kl != "k1",
      "kl 'k1': the expected gradient of this estimator is zero, so as a loss it does"
      " nothing; take k2 or k3 (k1 is reported beside them, as actor/kl_k1)",
    )
    fields.check_fields(self)
    choose.need("advantage", self.advantage, advantage.ADVANTAGES)
    choose.need("clip", self.clip, surrogate.SURROGATES)
    marginal = self.space == "marginal"
    fields.need(
      marginal or self.context == "start",
      f"context {self.context!r} stands in the prompt's place, so it needs space"
      " 'marginal'",
    )
    of_prompts = marginal and context.of(self).ids is None
    fields.need(
      not of_prompts or context.of(self).groups(self) >= 2,
      f"copies {self.copies}: a {self.context} is over 2 prompts or more",
    )
    fields.need(
      not marginal or self.kl == "none",
      f"kl {self.kl!r} is measured on P(y|x): space must be 'conditional'",
    )
    fields.need(
      self.tis_floor <= self.tis_cap,
      f"tis_floor {self.tis_floor}: must be at most tis_cap {self.tis_cap}",
    )
    fields.need(
      (self.kl == "none") == (self.kl_coef == 0),
      f"kl {self.kl!r} with kl_coef {self.kl_coef}: give both (kl_coef > 0) or neither",
    )
    fields.need(
      self.select != "all" or self.negative == "advantage",
      "negative 'reward' defines a filter: select must be 'negative' or 'positive'",
    )
    fields.need(
      self.control != "all-down" or self.select != "positive",
      "control 'all-down' leaves no positive sample: select must be all or negative",
    )
    fields.need(
      self.dual_clip is None or self.dual_clip > 1,
      f"dual_clip {self.dual_clip}: must be > 1, or None",
    )
