"""The loss of an update from its definition, end to end: float64, loops, no pxy.

Written from the method (docs/objectives.md and its sources), not from the code. From
prompts, responses, sampler log-probs, rewards and flags, and a language model small
enough to be differentiated by finite differences, to one number and its gradient: view,
advantage, sign filter, importance weights, surrogate, KL, reduction, coefficient, sum
over terms.

Every number that depends on the weights is a vector over Q: entry 0 belongs to the
weights themselves, entries 1 + 2i and 2 + 2i to those with the i-th weight moved up and
down. So one sweep gives the loss and all its central differences, and to hold a value
constant, as the method does with old log-probs, importance weights and CISPO's ratio,
is to take its entry 0 (`hold`).

Where the sources are silent, the oracle takes: positive is A > 0; a response without a
token is no sequence; importance weights scale the surrogate and not the KL; differences
of log-probs count up to 20 in ratios, and k3's exponent goes on from there along its
tangent.

Axes: P prompts, R responses to each, Q as above, n positions, V tokens, D width.
"""

import dataclasses

import numpy as np

import reference

VOCAB, WIDTH, POSITIONS = 7, 5, 16
DECAY, STEP, FAR = 0.8, 1e-5, 20.0


@dataclasses.dataclass(frozen=True)
class Rollout:
  """What was drawn. Nested lists [P][R][tokens]; prompts are [P][tokens]."""

  prompts: list
  responses: list
  sampler: list
  """Log-probs of the response tokens as the sampler gave them."""
  rewards_PR: np.ndarray
  valid_PR: np.ndarray
  """False: no grade; the sample counts nowhere, whatever its reward."""
  truncated_PR: np.ndarray
  """Ended by the limit, not by a stop token."""
  limit: int
  """Most tokens of a response."""
  mask: list | None = None
  """Whether a response token is trained on, [P][R][tokens]; None: all are. The others
  are given, as the context is: they are in no probability, mean or length."""
  adv: list | None = None
  """Advantages of the tokens, [P][R][tokens], instead of their response's."""

  def kept(self, p: int, r: int) -> list:
    return self.mask[p][r] if self.mask else [True] * len(self.responses[p][r])

  def adv_of(self, p: int, r: int, own: float) -> list:
    return self.adv[p][r] if self.adv else [own] * len(self.responses[p][r])


# ---- the language model ------------------------------------------------------------


def weights(seed: int, scale: float = 0.6) -> dict[str, np.ndarray]:
  """Weights of the tiny model."""
  rng = np.random.default_rng(seed)
  shapes = {
    "embed": (VOCAB, WIDTH),
    "head": (WIDTH, VOCAB),
    "mix": (WIDTH, WIDTH),
    "place": (POSITIONS, WIDTH),
  }
  return {name: rng.normal(0, scale, shape) for name, shape in shapes.items()}


def flat(tree: dict) -> np.ndarray:
  """All weights in one vector, by name."""
  return np.concatenate([np.ravel(tree[name]) for name in sorted(tree)])


def moved(tree: dict, step: float = STEP) -> dict[str, np.ndarray]:
  """The weights, and each of them moved up and down: a leading axis Q."""
  base = flat(tree)
  rows = [base]
  for i in range(len(base)):
    for sign in (1, -1):
      row = base.copy()
      row[i] += sign * step
      rows.append(row)
  rows, at, out = np.stack(rows), 0, {}
  for name in sorted(tree):
    size = tree[name].size
    out[name] = rows[:, at : at + size].reshape(-1, *tree[name].shape)
    at += size
  return out


def still(tree: dict) -> dict[str, np.ndarray]:
  """The weights alone, with an axis Q of one entry."""
  return {name: value[None] for name, value in tree.items()}


def logprobs(tree_Q: dict, context, response) -> list:
  """log P(y_t | context, y_<t) of every response token, each a vector over Q.

  Position n sees the tokens and positions up to n, those further back less.
  """
  tokens, out = [*context, *response], []
  state_QD = 0.0
  for n, token in enumerate(tokens[:-1]):
    inp_QD = tree_Q["embed"][:, token] + tree_Q["place"][:, n]
    state_QD = DECAY * state_QD + np.einsum("qd,qde->qe", inp_QD, tree_Q["mix"])
    if n + 1 < len(context):
      continue
    z_QV = np.einsum("qd,qdv->qv", np.tanh(state_QD), tree_Q["head"])
    total_Q = np.log(np.exp(z_QV).sum(1))
    out.append(z_QV[:, tokens[n + 1]] - total_Q)
  return out


class Model:
  """log P(y|context) of a rollout's responses, each pair scored once."""

  def __init__(self, tree_Q: dict):
    self.tree_Q, self.known = tree_Q, {}

  def score(self, context, response) -> list:
    key = (tuple(context), tuple(response))
    if key not in self.known:
      self.known[key] = logprobs(self.tree_Q, *key)
    return self.known[key]


# ---- the view ----------------------------------------------------------------------


def contexts_of(term, rollout: Rollout, p: int, fixed: dict, shift: int, shifts):
  """The contexts whose mean probability is the likelihood that a term moves."""
  prompts = rollout.prompts
  if term.space == "conditional":
    return [prompts[p]]
  if term.context == "shuffled":
    return [prompts[(p + shift) % len(prompts)]]
  if term.context == "mixture":
    return [prompts[(p + s) % len(prompts)] for s in shifts]
  return [fixed[term.context]]


def view(term, rollout: Rollout, model: Model, fixed: dict, shift=None, shifts=None):
  """Log-probs [P][R][token] of a term: its context in the prompt's place."""
  out = []
  for p, group in enumerate(rollout.responses):
    contexts = contexts_of(term, rollout, p, fixed, shift, shifts)
    out.append(
      [
        mixture([model.score(c, y) for c in contexts], rollout.kept(p, r))
        for r, y in enumerate(group)
      ]
    )
  return out


def mixture(scores: list, kept: list) -> list:
  """Tokens of log mean_k P(y|x_k): by the chain rule, log P(y_<=t) - log P(y_<t).

  P(y|x_k) is over the tokens that are kept; what stands for the others has no meaning.
  """
  if len(scores) == 1:
    return scores[0]
  out, before = [], 0.0
  for t in range(len(scores[0])):
    prefixes = [
      np.exp(sum((s for s, k in zip(score[: t + 1], kept, strict=False) if k), 0.0))
      for score in scores
    ]
    upto = np.log(sum(prefixes) / len(prefixes))
    out.append(upto - before + 0.0 * scores[0][t])
    before = upto
  return out


# ---- rewards, advantages, sign filter ----------------------------------------------


def graded(rollout: Rollout, rule: str, buffer: int):
  """Rewards and valid flags after the rule for responses that are too long."""
  rewards_PR = np.array(rollout.rewards_PR, np.float64)
  valid_PR = np.array(rollout.valid_PR, bool)
  for p, r in np.ndindex(rewards_PR.shape):
    if rule == "mask" and rollout.truncated_PR[p, r]:
      valid_PR[p, r] = False
    if rule == "penalty":
      over = len(rollout.responses[p][r]) - (rollout.limit - buffer)
      rewards_PR[p, r] -= min(1.0, max(0.0, over / buffer))
  return rewards_PR, valid_PR


def choice(term, rewards_PR, valid_PR, labels=None):
  """Advantages, and which samples the term is about.

  What is negative by its reward has A = -1; of the positive ones the paper says
  nothing, and they have +1. `labels` are the rewards that a control with random labels
  has drawn.
  """
  if term.control == "random-label":
    rewards_PR = labels
  adv_PR = reference.advantages(term.advantage, rewards_PR, valid_PR, term.lam, term.k)
  chosen_PR = np.array(valid_PR, bool)
  if term.control == "all-down":
    if term.negative == "reward":
      adv_PR = np.where(valid_PR, 1.0, 0.0)
    for group, valid in zip(adv_PR, chosen_PR, strict=True):
      group[valid] = -np.sqrt(sum(a**2 for a in group[valid]) / max(1, valid.sum()))
    if term.select == "negative":
      chosen_PR &= adv_PR < 0
    return adv_PR, chosen_PR
  for p, r in np.ndindex(adv_PR.shape):
    if not valid_PR[p, r]:
      continue
    if term.negative == "reward":
      negative = rewards_PR[p, r] <= 0
      positive = not negative
      adv_PR[p, r] = -1.0 if negative else 1.0
    else:
      negative, positive = adv_PR[p, r] < 0, adv_PR[p, r] > 0
    if term.select == "negative":
      chosen_PR[p, r] = negative
    if term.select == "positive":
      chosen_PR[p, r] = positive
  return adv_PR, chosen_PR


# ---- token losses ------------------------------------------------------------------


def hold(x_Q) -> float:
  """The value at the weights themselves: a constant of the gradient."""
  return np.atleast_1d(x_Q)[0]


def near(x):
  """Differences of log-probs are counted up to FAR."""
  return np.clip(x, -FAR, FAR)


def importance(term, drawn, sampler) -> list:
  """Importance weights of a response's tokens: `drawn` are the log-probs before the
  update in the view it was drawn in, whatever the term's."""
  gaps = [a - b for a, b in zip(drawn, sampler, strict=True)]
  if term.tis == "none":
    return [1.0 for _ in gaps]
  if term.tis.startswith("sequence"):
    gaps = [sum(gaps) for _ in gaps]
  ratios = [float(np.exp(near(gap))) for gap in gaps]
  if term.tis.endswith("mask"):
    return [x if term.tis_floor <= x <= term.tis_cap else 0.0 for x in ratios]
  return [min(term.tis_cap, x) for x in ratios]


def confidence(term, before, adv: float) -> float:
  """How much a mistake counts: the geometric mean of its tokens' probabilities."""
  if not term.confidence or adv >= 0:
    return 1.0
  return float(np.prod([np.exp(x) for x in before]) ** (1 / len(before)))


def dual(term, objective, adv):
  """A negative advantage is counted up to dual_clip times."""
  if term.dual_clip is not None and adv < 0:
    return np.maximum(objective, term.dual_clip * adv)
  return objective


def surrogate(term, logp, old, advs: list) -> list:
  """The loss of a response's tokens, before importance weights and KL."""
  gaps = [near(a - b) for a, b in zip(logp, old, strict=True)]
  if term.clip == "gspo":
    gaps = [sum(gaps) / len(gaps) for _ in gaps]
  out = []
  for mine, gap, adv in zip(logp, gaps, advs, strict=True):
    ratio = np.exp(gap)
    limited = np.clip(ratio, 1 - term.clip_low, 1 + term.clip_high)
    if term.clip == "none":
      out.append(-adv * mine)
    elif term.clip == "cispo":
      out.append(-hold(limited) * adv * mine)
    else:
      objective = np.minimum(ratio * adv, limited * adv)
      out.append(-(dual(term, objective, adv) if term.clip == "ppo" else objective))
  return out


def kl(kind: str, logp, ref: float):
  """Estimators of KL(policy || reference) at a token of the policy."""
  d = logp - ref
  far = np.maximum(-d - FAR, 0)  # beyond, along the tangent
  return {"k2": d**2 / 2, "k3": np.exp(np.minimum(-d, FAR)) * (1 + far) - 1 + d}[kind]


def reduced(how: str, rows: list, constant: float):
  """One loss from the token losses of the chosen responses; no token: zero."""
  rows = [row for row in rows if row]
  if not rows:
    return 0.0
  if how == "token-mean":
    return sum(x for row in rows for x in row) / sum(len(row) for row in rows)
  lengths = {
    "seq-mean-token-mean": [len(row) for row in rows],
    "seq-mean-token-sum": [1 for _ in rows],
    "constant": [constant for _ in rows],
  }[how]
  return sum(sum(row) / n for row, n in zip(rows, lengths, strict=True)) / len(rows)


# ---- the update --------------------------------------------------------------------


def term_loss(
  term, rollout, model, fixed, rule="keep", buffer=1, shift=None, shifts=None,
  old=None, ref=None, drawn=None, labels=None,
):  # fmt: skip
  """The loss of one term as a vector over Q, times its coefficient.

  drawn: log-probs before the update after each response's own prompt; None: those of
  the model itself. labels: the rewards in random order, for the control.
  """
  rewards_PR, valid_PR = graded(rollout, rule, buffer)
  adv_PR, chosen_PR = choice(term, rewards_PR, valid_PR, labels)
  logp = view(term, rollout, model, fixed, shift, shifts)
  rows = []
  for p, r in np.ndindex(adv_PR.shape):
    if not chosen_PR[p, r]:
      continue
    before = old[p][r] if old is not None else [hold(x) for x in logp[p][r]]
    given = [logp[p][r], before, rollout.sampler[p][r]]
    given.append(rollout.adv_of(p, r, adv_PR[p, r]))
    given.append(ref[p][r] if term.kl != "none" else before)
    kept = rollout.kept(p, r)
    mine, before, sampler, advs, base = (
      [x for x, k in zip(row, kept, strict=True) if k] for row in given
    )
    if not mine:
      continue
    if drawn is None:
      score = model.score(rollout.prompts[p], rollout.responses[p][r])
      sampled = [hold(x) for x in score]
    else:
      sampled = drawn[p][r]
    sampled = [x for x, k in zip(sampled, kept, strict=True) if k]
    scale = importance(term, sampled, sampler)
    advs = [adv * confidence(term, before, adv) for adv in advs]
    row = surrogate(term, mine, before, advs)
    row = [w * x for w, x in zip(scale, row, strict=True)]
    if term.kl != "none":
      row = [
        x + term.kl_coef * kl(term.kl, a, b)
        for x, a, b in zip(row, mine, base, strict=True)
      ]
    rows.append(row)
  return term.coef * reduced(term.reduction, rows, term.constant)


def loss(terms, rollout, model, fixed, olds=None, refs=None, **settings):
  """Value and gradient of an update: the sum of its terms, each with its own mean."""
  total_Q = 0.0
  for i, term in enumerate(terms):
    old, ref = (x[i] if x is not None else None for x in (olds, refs))
    total_Q = total_Q + term_loss(
      term, rollout, model, fixed, old=old, ref=ref, **settings
    )
  size = sum(value[0].size for value in model.tree_Q.values())
  total_Q = np.broadcast_to(total_Q, (1 + 2 * size,))
  return total_Q[0], (total_Q[1::2] - total_Q[2::2]) / (2 * STEP)
