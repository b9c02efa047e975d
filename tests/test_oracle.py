"""The loss of pxy and its gradient against tests/oracle.py, over the options of a term.

Both paths are compared: rows as a run packs them (batch.prepare and objective.loss over
micro-batches), and the entry points that take arrays (conditional_loss, marginal_loss),
which get advantages and selected samples from the oracle. All is in float64 but for
what pxy stores as float32 whatever the mode: weights, advantages and given log-probs.
That alone sets the tolerance (given log-probs are rounded to what float32 holds);
test_a_mistake_is_found shows that mistakes are hundreds of times larger.

The cases of test_term are chosen so that any three options of different fields meet in
at least one case, unless config.Term refuses them together; an estimator, which comes
in by one number a sample, meets any other one. Estimators, filters, controls and
overlong rules are compared in all their combinations.
"""

import dataclasses
import functools
import itertools
import random
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_objectives_md

from pxy import config
from pxy.rl import (
  advantage,
  context,
  objective,
  pack,
  reduction,
  rollout,
  surrogate,
  view,
)
from pxy.rl import term as term_lib
from pxy.run import batch
from pxy.train import rate

import oracle
import reference

TOLERANCE = 5e-7
FIXED = dict(
  zip(
    (name for name, record in context.CONTEXTS.items() if record.ids is not None),
    itertools.cycle(([5], [3, 4, 0])),
    strict=False,
  )
)
STOP, BUFFER, LIMIT = 6, 4, 6
KEY = jax.random.key(3)
SHAPE = batch.Shape(micro_max=3, micro_rows=16, row_tokens=24)
MANY = batch.Shape(micro_max=48, micro_rows=1, row_tokens=24)
WEIGHTS = {name: oracle.weights(i) for i, name in enumerate(("now", "old", "ref"))}
FAR_V = np.array([0.0, 25.0, 0.0, -25.0, 0.05, 0.0, -0.3])
"""What `old: far` adds to the old log-prob of each token: ratios beyond all bounds."""


@pytest.fixture(autouse=True)
def float64():
  with rate.x64(True):
    yield


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
  """The rest runs op by op; the scan of `mixed` would be a hundred programs."""
  monkeypatch.setattr(objective, "mixed", MIXED)


MIXED = jax.jit(objective.mixed)


# ---- the tiny model as pxy is given a model ----------------------------------------


def score(params, packed: pack.Packed):
  """The model of oracle.logprobs over packed rows: (logp_BT, entropy_BT)."""
  return _score(
    params,
    packed.tokens_BT,
    packed.positions_BT,
    packed.segments_BT,
    packed.targets_BT,
  )


@jax.jit
def _score(params, tokens_BT, positions_BT, segments_BT, targets_BT):
  inp_BTD = params["embed"][tokens_BT] + params["place"][positions_BT]
  n_T = jnp.arange(tokens_BT.shape[1])
  back_TU = n_T[:, None] - n_T[None]
  seen_BTU = segments_BT[:, :, None] == segments_BT[:, None]
  share_BTU = jnp.where(
    seen_BTU & (back_TU >= 0)[None], (oracle.DECAY**back_TU)[None], 0.0
  )
  state_BTD = jnp.einsum("btu,bud,de->bte", share_BTU, inp_BTD, params["mix"])
  z_BTV = jnp.einsum("btd,dv->btv", jnp.tanh(state_BTD), params["head"])
  logp_BTV = jax.nn.log_softmax(z_BTV)
  logp_BT = jnp.take_along_axis(logp_BTV, targets_BT[..., None], 2)[..., 0]
  return logp_BT, -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, -1)


# ---- worlds ------------------------------------------------------------------------


def grid(x):
  """Multiples of 2^-12: exact in float32, as are their differences and sums."""
  return np.round(x * 4096) / 4096


def responses(rng, count, longest=LIMIT):
  """Responses of all kinds: without a token, with the stop token only, truncated."""
  kinds = [[], [STOP], rng.integers(0, 7, longest).tolist()]
  while len(kinds) < count:
    kinds.append([*rng.integers(0, 6, rng.integers(1, longest)).tolist(), STOP])
  return kinds[:count]


def world(seed, rewards, valid=None, ids=None):
  """A rollout with these rewards [P][R]; nan is a sample without a grade."""
  rng = np.random.default_rng(seed)
  rewards_PR = np.array(rewards, np.float64)
  groups, size = rewards_PR.shape
  ids = ids or responses(rng, groups * size)
  order = rng.permutation(len(ids))
  ids = [[ids[order[p * size + r]] for r in range(size)] for p in range(groups)]
  return oracle.Rollout(
    prompts=[rng.integers(0, 7, 1 + p % 3).tolist() for p in range(groups)],
    responses=ids,
    sampler=[
      [grid(rng.normal(-2, 0.7, len(y))).tolist() for y in group] for group in ids
    ],
    rewards_PR=rewards_PR,
    valid_PR=np.isfinite(rewards_PR) if valid is None else np.array(valid, bool),
    truncated_PR=np.array(
      [[len(y) == LIMIT and y[-1] != STOP for y in group] for group in ids]
    ),
    limit=LIMIT,
  )


def edges():
  """Batches that are all of one kind, as large as the others so that programs serve."""
  mixed = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]]
  return {
    "all wrong": world(3, np.zeros((4, 4))),
    "all right": world(4, np.ones((4, 4))),
    "no grade": world(5, np.full((4, 4), NAN)),
    "one grade": world(6, [[NAN] * 4, [NAN, 0, NAN, NAN], [NAN] * 4, [NAN] * 4]),
    "no token": world(7, mixed, ids=[[]] * 16),
    "one token": world(8, mixed, ids=[[]] * 15 + [[STOP]]),
    "stop tokens only": world(9, mixed, ids=[[STOP]] * 16),
    "truncated only": world(10, mixed, ids=[[1, 2, 3, 4, 5, v % 6] for v in range(16)]),
    "R = 1": world(11, np.reshape(mixed, (16, 1))),
    "P = 1": world(12, np.reshape(mixed, (1, 16))),
  }


def by_token(world_, seed=0):
  """The world with tokens that are not trained on, the whole of some responses among
  them, and an advantage for each token, some of them 0."""
  rng = np.random.default_rng(seed)
  ids = world_.responses
  return dataclasses.replace(
    world_,
    mask=[[(rng.random(len(y)) < rng.choice([0, 0.6, 1])).tolist() for y in group]
          for group in ids],
    adv=[[grid(rng.normal(size=len(y)) * rng.choice([0, 1, 1])).tolist() for y in group]
         for group in ids],
  )  # fmt: skip


NAN = float("nan")
EDGES = edges()
WORLDS = {
  # mixed, all wrong, all right but for a missing grade, a single grade
  "groups": world(
    204, [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, NAN, 1], [NAN, 0, NAN, NAN]]
  ),
  # scores that are not 0 or 1, some negative; one of them known and yet excluded
  "scores": world(
    2,
    [[0.5, -1, 2, 0.25], [1, 0, 0.75, 1], [0, 1, 1, 0.5], [0, 0.5, 0, 0]],
    [[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 1, 1]],
  ),
}  # fmt: skip
WORLDS["tokens"] = by_token(WORLDS["groups"])


@functools.cache
def models(name):
  """Models of a world: the present weights with all moves, older and reference ones."""
  return {
    "now": oracle.Model(oracle.moved(WEIGHTS["now"])),
    "old": oracle.Model(oracle.still(WEIGHTS["old"])),
    "ref": oracle.Model(oracle.still(WEIGHTS["ref"])),
  }


def arrays(world_, copies=1) -> rollout.Rollouts:
  """The world as pxy takes it, padded with junk to rows as wide as those of SHAPE."""
  ids = [[np.array(y, np.int32) for y in group] for group in world_.responses]
  logps = [[np.array(y, np.float32) for y in group] for group in world_.sampler]
  found = rollout.stack([np.array(x) for x in world_.prompts], ids, logps)

  def wider(x, width, fill):
    return np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=fill)

  return dataclasses.replace(
    found,
    prompt_BS=wider(found.prompt_BS, SHAPE.row_tokens // copies - LIMIT + 1, STOP),
    response_BT=wider(found.response_BT, LIMIT, STOP),
    logp_BT=wider(found.logp_BT, LIMIT, NAN),
  )


# ---- cases -------------------------------------------------------------------------

COPIES = {
  name: (2, 3) if record.copies(config.Term(copies=3)) > 1 else ("",)
  for name, record in context.CONTEXTS.items()
}
FIELDS = {
  "view": (
    "conditional", *(f"{name}{n}" for name, copies in COPIES.items() for n in copies),
  ),
  "filter": (
    ("all", "advantage"), ("negative", "advantage"), ("negative", "reward"),
    ("positive", "advantage"), ("positive", "reward"), ("all", "reward"),
  ),
  "advantage": tuple(advantage.ADVANTAGES),
  "clip": (*surrogate.SURROGATES, "ppo+dual"),
  "reduction": tuple(reduction.REDUCTIONS),
  "kl": typing.get_args(term_lib.Kl),
  "tis": typing.get_args(term_lib.Tis),
  "change": (*advantage.CONTROLS, "confidence"),
  "old": ("none", "given", "far"),
  "overlong": ("keep", "mask", "penalty"),
  "world": tuple(WORLDS),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
  """One choice per field of FIELDS."""

  view: str = "conditional"
  filter: tuple = ("all", "advantage")
  advantage: str = "grpo"
  clip: str = "ppo+dual"
  reduction: str = "token-mean"
  kl: str = "none"
  tis: str = "none"
  change: str = "none"
  old: str = "none"
  overlong: str = "keep"
  world: str = "groups"

  def __str__(self):
    parts = []
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      value = "/".join(value) if isinstance(value, tuple) else value
      unsaid = value in ("none", "keep") and field.name != "clip"
      parts.append("" if unsaid else f"{field.name}:{value}" if
                   field.name in ("old", "tis") else value)  # fmt: skip
    return " ".join(filter(None, parts))

  def term(self) -> config.Term:
    """The term, with numbers that differ from the defaults."""
    marginal = self.view != "conditional"
    return config.Term(
      space="marginal" if marginal else "conditional",
      context=self.view.rstrip("23") if marginal else "start",
      copies=int(self.view[-1]) if self.view[-1].isdigit() else 4,
      select=self.filter[0],
      negative=self.filter[1],
      advantage=self.advantage,
      lam=0.3,
      k=2,
      control="none" if self.change == "confidence" else self.change,
      confidence=self.change == "confidence",
      coef=0.7,
      clip=self.clip.removesuffix("+dual"),
      clip_low=0.15,
      clip_high=0.3,
      dual_clip=1.7 if self.clip.endswith("dual") else None,
      reduction=self.reduction,
      constant=12.0,
      kl=self.kl,
      kl_coef=0.4 if self.kl != "none" else 0.0,
      tis=self.tis,
      tis_cap=1.6,
      tis_floor=0.7,
    )


def refused(case: Case) -> bool:
  try:
    case.term()
  except config.Error:
    return True
  return False


def covering(seed=0, tries=40) -> list[Case]:
  """Cases in which all triples of options meet that a term may have together, and all
  pairs with an estimator."""
  rng, names = random.Random(seed), list(FIELDS)
  rest = [name for name in names if name != "advantage"]
  triples = [
    *itertools.combinations(rest, 3),
    *(("advantage", name) for name in rest),
  ]
  refusing = ("view", "filter", "kl", "change")  # fields that a Term compares

  def allowed(some):
    return not refused(Case(**{k: v for k, v in some.items() if k in refusing}))

  open_ = {
    tuple(zip(three, values, strict=True))
    for three in triples
    for values in itertools.product(*(FIELDS[name] for name in three))
    if allowed(dict(zip(three, values, strict=True)))
  }
  order, cases = sorted(open_, key=repr), []
  rng.shuffle(order)
  for seedling in order:
    if seedling not in open_:
      continue
    best, left = (), tries
    while left:
      some = {name: rng.choice(FIELDS[name]) for name in names} | dict(seedling)
      if not allowed(some):
        continue
      left -= 1
      items = {name: (name, some[name]) for name in names}
      closed = [tuple(items[name] for name in three) for three in triples]
      closed = [t for t in closed if t in open_]
      best = max(best, (len(closed), str(Case(**some)), closed, some))
    cases.append(Case(**best[3]))
    open_.difference_update(best[2])
  return cases


CASES = covering()


# ---- three ways to the same number -------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
  """An update: its terms, and what is common to them."""

  terms: tuple
  world: oracle.Rollout
  models: dict
  old: str = "none"
  ref: str = "given"
  overlong: str = "keep"

  @property
  def copies(self):
    return max(context.of(t).copies(t) for t in self.terms)

  @property
  def rotation(self):
    """The shifts that pxy draws for `shuffled` and `mixture`; the oracle is told."""
    groups = len(self.world.prompts)
    one = view.shifts(KEY, groups, 1)[0] if groups > 1 else None
    return one, [0, *view.shifts(KEY, groups, self.copies - 1)]

  def given(self, which: str, term) -> list:
    """Log-probs [P][R][token] of other weights in the term's view."""
    shift, shifts = self.rotation
    found = oracle.view(term, self.world, self.models[which], FIXED, shift, shifts)
    far_V = FAR_V if getattr(self, which) == "far" else np.zeros(7)
    return [
      [[grid(x[0] + far_V[v]) for x, v in zip(row, y, strict=True)]
       for row, y in zip(*pair, strict=True)]
      for pair in zip(found, self.world.responses, strict=True)
    ]  # fmt: skip

  @property
  def labels(self):
    """The rewards in the order that pxy draws for the control, after the rule."""
    rewards_PR, valid_PR = oracle.graded(self.world, self.overlong, BUFFER)
    return advantage.permuted(rewards_PR, valid_PR, KEY)

  @property
  def drawn(self):
    """Log-probs before the update, each after its prompt; None: of the weights."""
    return self.given("old", config.Term()) if self.old != "none" else None


def of(case: Case) -> Setting:
  return Setting(
    (case.term(),),
    WORLDS[case.world],
    models(case.world),
    old=case.old,
    overlong=case.overlong,
  )


def by_oracle(s: Setting):
  shift, shifts = s.rotation
  return oracle.loss(
    s.terms,
    s.world,
    s.models["now"],
    FIXED,
    olds=None if s.old == "none" else [s.given("old", t) for t in s.terms],
    refs=[s.given("ref", t) for t in s.terms],
    rule=s.overlong,
    buffer=BUFFER,
    drawn=s.drawn,
    labels=s.labels,
    shift=shift,
    shifts=shifts,
  )


def params(name="now"):
  return {key: jnp.asarray(value) for key, value in WEIGHTS[name].items()}


def differentiated(loss, jit=False):
  function = jax.value_and_grad(loss)
  value, grads = (jax.jit(function) if jit else function)(params())
  return float(value), oracle.flat(jax.device_get(grads))


def prepared(s: Setting, shape=SHAPE) -> batch.Batch:
  """As a step does it: overlong rule, then batch.prepare."""
  rollouts = arrays(s.world, s.copies)
  rewards_PR, valid_PR = advantage.overlong(
    s.overlong,
    s.world.rewards_PR,
    s.world.valid_PR,
    length_PR=rollouts.response_len_B.reshape(s.world.rewards_PR.shape),
    truncated_PR=s.world.truncated_PR,
    limit=s.world.limit,
    buffer=BUFFER,
  )
  phase = config.Phase(terms=s.terms)
  return batch.prepare(
    phase,
    rollouts,
    rewards_PR,
    valid_PR,
    contexts=FIXED,
    key=KEY,
    shape=shape,
    gap_BT=gaps(s, rollouts, shape) if phase.needs_gap else None,
    **tokenwise(s.world),
  )


def tokenwise(world_) -> dict:
  """mask_BT and adv_BT of a world that has them, padded with junk."""
  named = {"mask_BT": (world_.mask, True), "adv_BT": (world_.adv, NAN)}
  out = {}
  for name, (rows, junk) in named.items():
    if rows:
      flat = [np.array(row) for group in rows for row in group]
      out[name] = np.full((len(flat), LIMIT), junk)
      for row, x in zip(out[name], flat, strict=True):
        row[: len(x)] = x
  return out


def gaps(s: Setting, rollouts, shape):
  """As a step does it: all responses scored after their prompts."""
  drawn, _ = batch.all_drawn(rollouts, shape)
  which = "now" if s.old == "none" else "old"
  flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), drawn)
  logp_BT = np.asarray(score(params(which), flat)[0])
  if s.old != "none":
    logp_BT = grid(logp_BT + (FAR_V[flat.targets_BT] if s.old == "far" else 0))
  return batch.gaps(rollouts, drawn, logp_BT.reshape(drawn.mask_BT.shape))


def by_batch(s: Setting, shape=SHAPE, jit=False):
  """Sums over the micro-batches of packed rows, at least one of them."""
  made = prepared(s, shape)
  mixes = made.packed.copies_BTC is not None

  def given_BT(which, micro):
    logp_BT = score(params(which), micro)[0]
    if mixes:
      logp_BT = objective.mixed(logp_BT, micro)
    if getattr(s, which) == "far":
      logp_BT += FAR_V[micro.targets_BT]
    return grid(logp_BT)

  micros = [
    jax.tree.map(lambda x, m=m: x[m], made.packed) for m in range(max(1, made.used))
  ]
  if s.old != "none":
    micros = [dataclasses.replace(x, old_BT=given_BT("old", x)) for x in micros]
  if any(term.kl != "none" for term in s.terms):
    micros = [dataclasses.replace(x, ref_BT=given_BT("ref", x)) for x in micros]

  def loss(params):
    return sum(objective.loss(score, params, x, s.terms)[0] for x in micros)

  return differentiated(loss, jit)


def by_entry(s: Setting, jit=False):
  """The entry point of the term; the oracle says what is selected and how it counts."""
  (term,) = s.terms
  graded = oracle.graded(s.world, s.overlong, BUFFER)
  adv_PR, chosen_PR = oracle.choice(term, *graded, s.labels)
  rollouts = arrays(s.world, s.copies)

  def padded(rows):
    flat = [np.array(row) for group in rows for row in group]
    return rollout.pad([*flat, np.zeros(LIMIT)], np.float64)[0][:-1]

  more = {"term": term, "selected_B": chosen_PR.reshape(-1)}
  if s.old != "none":
    more["old_BT"] = padded(s.given("old", term))
  if term.space == "conditional":
    function = objective.conditional_loss
    more["ref_BT"] = padded(s.given("ref", term)) if term.kl != "none" else None
  else:
    function = objective.marginal_loss
    if term.tis != "none":
      logp_BT = objective.logps(score, params(), rollouts)
      if s.old != "none":
        logp_BT = padded(s.drawn)
      more["gap_BT"] = logp_BT - rollouts.logp_BT
    if term.context in FIXED:
      more["context"] = np.array(FIXED[term.context])
    else:
      more["context"] = batch.view_of(term, rollouts, FIXED, KEY)
  more |= tokenwise(s.world)
  if "adv_BT" not in more:
    more["adv_B"] = adv_PR.reshape(-1)
  with pytest.MonkeyPatch.context() as patch:
    if not jit:  # op by op: no program is compiled for each case
      patch.setattr(objective, "_of_rollouts", objective._of_rollouts.__wrapped__)
    return differentiated(lambda p: function(score, p, rollouts, **more)[0])


def distance(got, want) -> float:
  """How far value and gradient are off, in parts of their size."""
  if not np.isfinite(got[0]) or not np.isfinite(got[1]).all():
    return np.inf
  size = np.abs(want[1]).max()
  # A value may cancel to nothing where its gradient does not, and central differences
  # of a huge value are rounded in the last digits.
  value = abs(got[0] - want[0]) / max(abs(want[0]) + size, 1e-12)
  gap = np.abs(got[1] - want[1]).max()
  rounded = abs(want[0]) * np.finfo(float).eps / oracle.STEP
  return max(value, max(0.0, gap - 10 * rounded) / max(size, 1e-12))


def compare(setting, what="", **ways):
  ways = ways or {"batch": by_batch, "entry": by_entry}
  want = by_oracle(setting)
  off = {name: float(distance(way(setting), want)) for name, way in ways.items()}
  assert max(off.values()) < TOLERANCE, f"{what}: relative differences {off}"


# ---- tests -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_term(case):
  compare(of(case), case)


@pytest.mark.parametrize("seed", range(16))
def test_terms_add_up(seed):
  rng = random.Random(seed)
  first = rng.choice([c for c in CASES if seed % 2 or c.view == "conditional"])
  fits = [c for c in CASES if not c.view[-1].isdigit() and c.view != first.view]
  cases = [first, *rng.sample(fits, 1 + seed % 2)]
  terms = tuple(
    dataclasses.replace(case.term(), coef=coef)
    for case, coef in zip(cases, (1.0, 0.01, 0.3), strict=False)
  )
  setting = dataclasses.replace(of(first), terms=terms)
  compare(setting, " + ".join(map(str, cases)), batch=by_batch)


@pytest.mark.parametrize(
  "case",
  [
    Case(clip="gspo", kl="k3", tis="sequence", old="given"),
    Case(view="start", advantage="mean", overlong="penalty", world="scores"),
    Case(view="mixture3", reduction="seq-mean-token-mean", world="tokens"),
  ],
  ids=str,
)
def test_micro_batches_add_up_and_programs_compile(case):
  ways = {
    "many": functools.partial(by_batch, shape=MANY, jit=True),
    "jit": functools.partial(by_entry, jit=True),
  }
  assert prepared(of(case), MANY).used > 1, "the rows must not fit one micro-batch"
  compare(of(case), case, **ways)


NAMED = test_objectives_md.named()


@pytest.mark.parametrize("view", ["conditional", "marginal"])
@pytest.mark.parametrize("name", NAMED)
def test_what_the_docs_call_by_name(name, view):
  """Of several updates; the marginal contexts take turns."""
  term = dataclasses.replace(NAMED[name], k=2)  # the world has groups of 4
  if view == "marginal":
    turn = list(NAMED).index(name) % len(context.CONTEXTS)
    term = dataclasses.replace(
      term,
      space="marginal",
      context=list(context.CONTEXTS)[turn],
      copies=3,
      kl="none",
      kl_coef=0.0,
    )
  setting = dataclasses.replace(of(Case(old="given")), terms=(term,))
  compare(setting, name)


def test_a_context_may_be_a_list_of_ids():
  # "ids [S] of a fixed context, such as [start_id]": marginal_loss's own example.
  rollouts, adv_B = arrays(WORLDS["groups"]), np.linspace(-1, 1, 16)
  array, listed = (
    objective.marginal_loss(score, params(), rollouts, adv_B, context=context)[0]
    for context in (np.array(FIXED["start"]), FIXED["start"])
  )
  assert array == listed


@pytest.mark.parametrize(
  "case", [Case(kl="k2", old="given"), Case(view="mixture2", clip="cispo")], ids=str
)
def test_in_float32_as_a_run_is(case):
  with rate.x64(False):
    got = by_batch(of(case), jit=True)
  assert distance(got, by_oracle(of(case))) < 1e-5


@pytest.mark.parametrize("overlong", FIELDS["overlong"])
@pytest.mark.parametrize("name", [*WORLDS, *EDGES])
def test_every_choice_of_samples(name, overlong):
  world_ = (WORLDS | EDGES)[name]
  lengths_PR = np.array([[len(y) for y in group] for group in world_.responses])
  graded = advantage.overlong(
    overlong,
    world_.rewards_PR,
    world_.valid_PR,
    length_PR=lengths_PR,
    truncated_PR=world_.truncated_PR,
    limit=LIMIT,
    buffer=BUFFER,
  )
  want = oracle.graded(world_, overlong, BUFFER)
  labels = advantage.permuted(*graded, KEY)
  for filter_, kind, change in itertools.product(
    FIELDS["filter"], FIELDS["advantage"], advantage.CONTROLS
  ):
    case = Case(filter=filter_, advantage=kind, change=change)
    if refused(case):
      continue
    adv_PR, selected_PR = advantage.compute(case.term(), *graded, KEY)
    want_adv_PR, chosen_PR = oracle.choice(case.term(), *want, labels)
    np.testing.assert_array_equal(selected_PR, chosen_PR, err_msg=str(case))
    np.testing.assert_allclose(
      np.where(selected_PR, adv_PR, 0),
      np.where(chosen_PR, want_adv_PR, 0),
      rtol=1e-6,
      err_msg=str(case),
    )


EDGE_TERMS = [
  Case(kl="k3", old="given", tis="token"),
  Case(filter=("negative", "reward"), clip="cispo", reduction="constant"),
  Case(filter=("positive", "advantage"), advantage="batch", clip="gspo", old="given"),
  Case(view="start", filter=("negative", "advantage"), advantage="mean"),
  Case(view="start", advantage="reinforce", reduction="seq-mean-token-sum"),
  Case(view="shuffled", advantage="rloo", clip="ppo", old="far"),
  Case(view="mixture2", advantage="sign", reduction="seq-mean-token-mean"),
  Case(view="start", advantage="pass-at-k", tis="sequence-mask", change="confidence"),
  Case(view="shuffled", advantage="maxrl", tis="token", change="random-label"),
]


def possible(name, case):
  """One group has no other prompt to be shuffled or mixed with."""
  return name != "P = 1" or context.of(case.term()).groups(case.term()) == 1


@pytest.mark.parametrize(
  ("name", "case"),
  [pair for pair in itertools.product(EDGES, EDGE_TERMS) if possible(*pair)],
  ids=str,
)
def test_edge(name, case):
  setting = dataclasses.replace(of(case), world=EDGES[name])
  compare(setting, f"{name}: {case}")


@pytest.mark.parametrize("name", ["no grade", "no token"])
def test_nothing_selected_is_zero(name):
  for case in (Case(kl="k3"), Case(view="mixture2", clip="gspo", old="given")):
    setting = dataclasses.replace(of(case), world=EDGES[name])
    for way in (by_oracle, by_batch, by_entry):
      value, gradient = way(setting)
      assert value == 0 and (gradient == 0).all(), (name, str(case), way)


@pytest.mark.parametrize("kl", surrogate.KLS)
def test_a_reference_that_is_far_away(kl):
  setting = dataclasses.replace(of(Case(kl=kl, clip="none")), ref="far")
  compare(setting, kl)


# ---- mistakes ----------------------------------------------------------------------


def biased(kind, rewards_PR, valid_PR, lam, k, right=reference.advantages):
  count_P1 = valid_PR.sum(1, keepdims=True)
  spread_P1 = np.sqrt(count_P1 / np.maximum(count_P1 - 1, 1))
  return right(kind, rewards_PR, valid_PR, lam, k) * spread_P1


def without(part, right=oracle.reduced):
  return lambda how, rows, n: right(how, [row[part] for row in rows], n)


def mean_over_all(term, rewards_PR, valid_PR, labels=None, right=oracle.choice):
  adv_PR, chosen_PR = right(term, rewards_PR, valid_PR)
  return np.where(chosen_PR, adv_PR, 0.0), valid_PR


def zero_is_right(term, rewards_PR, valid_PR, labels=None, right=oracle.choice):
  return right(term, np.where(rewards_PR == 0, 1e-9, rewards_PR), valid_PR)


def other_way(term, world_, p, fixed, shift, shifts, right=oracle.contexts_of):
  return right(term, world_, p, fixed, -shift, shifts)


def without_own(term, world_, p, fixed, shift, shifts, right=oracle.contexts_of):
  return right(term, world_, p, fixed, shift, shifts[1:])


def mean_of_logs(scores, kept):
  return [sum(tokens) / len(tokens) for tokens in zip(*scores, strict=True)]


def mean_of_ratios(term, logp, old, adv, right=oracle.surrogate):
  ratios = [np.exp(a - b) for a, b in zip(logp, old, strict=True)]
  gap = np.log(sum(ratios) / len(ratios))
  return right(term, [gap for _ in logp], [0.0 for _ in logp], adv)


def all_tokens(rollout_, p, r):
  return [True] * len(rollout_.responses[p][r])


def of_response(rollout_, p, r, own):
  return [own] * len(rollout_.responses[p][r])


def of_the_reference(kind, logp, ref, right=oracle.kl):
  return right(kind, -np.asarray(logp), -ref)


def capped(term, drawn, sampler, right=oracle.importance):
  return right(dataclasses.replace(term, tis=term.tis[:-5]), drawn, sampler)


def without_labels(term, rewards_PR, valid_PR, labels=None, right=oracle.choice):
  return right(dataclasses.replace(term, control="none"), rewards_PR, valid_PR)


def of_all(term, before, adv, right=oracle.confidence):
  return right(term, before, -1.0)


GIVEN = Case(old="given")
MISTAKES = {
  "the std is biased": (reference, "advantages", biased, Case()),
  "no stop token": (oracle, "reduced", without(slice(-1)), Case()),
  "no first token": (oracle, "reduced", without(slice(1, None)), Case(view="start")),
  "the mean is over all samples": (
    oracle, "choice", mean_over_all, Case(filter=("negative", "advantage")),
  ),
  "negative is r < 0": (
    oracle, "choice", zero_is_right, Case(filter=("negative", "reward")),
  ),
  "positive advantages are dual-clipped": (
    oracle, "dual", lambda term, x, adv: np.maximum(x, term.dual_clip * adv), GIVEN,
  ),
  "no dual clip": (oracle, "dual", lambda term, x, adv: x, GIVEN),
  "ratios are not bounded": (
    oracle, "near", lambda x: x, Case(clip="ppo", old="far", world="scores"),
  ),
  "old log-probs are not constant": (oracle, "hold", lambda x: x, Case()),
  "the ratio of cispo is not constant": (
    oracle, "hold", lambda x: x, Case(clip="cispo", old="given"),
  ),
  "gspo takes the mean of ratios": (
    oracle, "surrogate", mean_of_ratios, Case(clip="gspo", old="given"),
  ),
  "the kl is that of the reference": (
    oracle, "kl", of_the_reference, Case(kl="k3", clip="none"),
  ),
  "importance weights are not capped": (
    oracle, "min", lambda cap, x: x, Case(tis="token"),
  ),
  "importance weights are not masked": (
    oracle, "importance", capped, Case(view="start", tis="token-mask"),
  ),
  "labels are not permuted": (
    oracle, "choice", without_labels, Case(change="random-label"),
  ),
  "right answers go up": (oracle, "choice", without_labels, Case(change="all-down")),
  "confidence counts for right answers": (
    oracle, "confidence", of_all, Case(change="confidence"),
  ),
  "prompts are shuffled the other way": (
    oracle, "contexts_of", other_way, Case(view="shuffled"),
  ),
  "the mixture leaves out its own prompt": (
    oracle, "contexts_of", without_own, Case(view="mixture3"),
  ),
  "the mixture is a mean of logs": (
    oracle, "mixture", mean_of_logs, Case(view="mixture3"),
  ),
  "the mask is not looked at": (
    oracle.Rollout, "kept", all_tokens, Case(view="start", world="tokens"),
  ),
  "tokens have their response's advantage": (
    oracle.Rollout, "adv_of", of_response, Case(world="tokens"),
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name, monkeypatch):
  module, attribute, wrong, case = MISTAKES[name]
  compare(of(case), case)
  monkeypatch.setattr(module, attribute, wrong, raising=attribute != "min")
  off = distance(by_batch(of(case)), by_oracle(of(case)))
  assert off > 100 * TOLERANCE, f"{name}: off by {off:.1e} only"
