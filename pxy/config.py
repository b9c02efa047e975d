"""What a run is: frozen dataclasses. The only owner of defaults, and all of them data.

An experiment file returns a `Train` (or `Pretrain`); the command line overrides any
field (`--data.task`, `--phases.0.lr`). The run folder keeps it as config.json, and
`digest` names it in every checkpoint. `check` refuses, before anything is loaded, what
cannot work.

A training run is a tuple of phases. A phase is one or more terms and an optimizer
setting: NSR-PreRL is one marginal term on negatives, DSRL is that phase followed by
GRPO.
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
from typing import Literal


class Error(ValueError):
  """Something the user can mend. The text is one line: what is wrong, and the cure."""


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand of the loss: which likelihood, of which samples, how weighted."""

  space: Literal["conditional", "marginal"] = "conditional"
  """Which likelihood moves: log P(y|x) or log P(y)."""
  context: Literal["start", "document", "shuffled", "mixture"] = "start"
  """What stands in the prompt's place in the marginal space: the chat start token, the
  document separator, another prompt of the batch, or a mean over `copies` prompts."""
  copies: int = 4
  """Prompts in the `mixture` context."""
  select: Literal["all", "negative", "positive"] = "all"
  """Sign filter. The loss is normalised over the selected samples only."""
  negative: Literal["advantage", "reward"] = "advantage"
  """What is negative: A < 0 (all-wrong groups give nothing), or every reward <= 0
  (all-wrong groups included, with A = -1)."""
  advantage: Literal[
    "grpo", "mean", "rloo", "reinforce", "sign", "w-reinforce", "batch"
  ] = "grpo"
  lam: float = 0.1
  """w-reinforce: weight of correct samples."""
  coef: float = 1.0
  clip: Literal["none", "ppo", "gspo", "cispo"] = "ppo"
  clip_low: float = 0.2
  clip_high: float = 0.2
  dual_clip: float | None = 10.0
  """ppo: bound on ratio * |A| for negative advantages; None switches it off."""
  reduction: Literal[
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"
  ] = "token-mean"
  constant: float = 1024.0
  """The fixed length of the `constant` reduction."""
  kl: Literal["none", "k1", "k2", "k3"] = "none"
  """KL estimator against the start-of-run model, conditional space only."""
  kl_coef: float = 0.0
  tis: Literal["none", "token", "sequence"] = "none"
  """Truncated importance weights for a sampler that differs from the trainer."""
  tis_cap: float = 2.0


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stretch of training with one objective."""

  name: str = "grpo"
  terms: tuple[Term, ...] = (Term(),)
  steps: int | None = None
  """Length in steps; None in the last phase: until the run ends."""
  lr: float = 2e-4
  on_start: Literal["keep", "reset_optimizer"] = "keep"
  """What happens to the optimizer's moments when the phase starts."""


@dataclasses.dataclass(frozen=True)
class Data:
  task: str = "arithmetic/add3"
  """`arithmetic/LEVEL`, or a .jsonl or .parquet file."""
  grader: str = "auto"
  """`auto` (by task), `arithmetic`, `boxed`, `number`, or a function of TRL's or verl's
  signature: `package.module:name` or `path/to/file.py:name`."""
  prompts: int = 32
  """Prompts per step (P)."""
  responses: int = 8
  """Responses per prompt (R)."""
  max_prompt_tokens: int = 64
  template: Literal["chat", "plain"] = "chat"
  system: str = ""
  """System message put before each prompt that has none."""


@dataclasses.dataclass(frozen=True)
class Sampling:
  temperature: float = 1.0
  top_k: int = 0
  """Keep the k likeliest tokens; 0 keeps all."""
  top_p: float = 1.0
  max_new_tokens: int = 96
  slots: int = 256
  """Responses decoded at the same time; a finished one makes room for the next."""


@dataclasses.dataclass(frozen=True)
class Reward:
  workers: int = 2
  deadline: float = 5.0
  """Seconds a verifier may take for one sample."""
  memory_mb: int = 1024
  """Memory a worker may take on top of what it starts with."""
  max_failed: float = 0.1
  """Share of samples without a grade in a step above which the run stops."""
  overlong: Literal["keep", "mask", "penalty"] = "keep"
  """Truncated responses: an ordinary score, excluded, or a linear penalty."""
  overlong_buffer: int = 16
  """penalty: tokens before max_new_tokens over which it grows from 0 to 1."""
  refill: int = 0
  """Dynamic sampling: extra rounds of prompts for groups without contrast; 0 is off."""


@dataclasses.dataclass(frozen=True)
class Optim:
  """AdamW. The learning rate belongs to the phase."""

  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.01
  clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices per axis; -1 once: all that are left."""

  data: int = 1
  fsdp: int = -1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Compute:
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Of activations; master weights are float32."""
  remat: Literal["none", "dots", "full"] = "none"
  micro_rows: int = 0
  """Packed rows per micro-batch; 0: as many as a step has."""
  row_tokens: int = 0
  """Tokens of a packed row; 0: the longest prompt and response of the config."""
  vocab_chunk: int = 8192
  """Vocabulary entries per chunk of the log-probs."""


@dataclasses.dataclass(frozen=True)
class Eval:
  task: str = ""
  """Empty: the training task."""
  split: str = "test"
  problems: int = 128
  samples: int = 16
  temperature: float = 1.0
  top_p: float = 1.0


@dataclasses.dataclass(frozen=True)
class Save:
  keep: int = 2
  """Newest checkpoints kept; the one with the best score is kept besides."""
  best: str = "avg"
  """Evaluation metric that names the best checkpoint."""


@dataclasses.dataclass(frozen=True)
class Train:
  """A reinforcement-learning run."""

  model: str = "builtin:tiny"
  """`builtin:tiny`, an HF-style folder, or a run folder."""
  phases: tuple[Phase, ...] = (Phase(),)
  steps: int = 60
  updates: int = 1
  """Updates per batch of rollouts; with 1 the old log-probs cost no pass."""
  seed: int = 0
  eval_every: int = 0
  """Steps between evaluations; 0: only before and after."""
  save_every: int = 20
  data: Data = Data()
  sampling: Sampling = Sampling()
  reward: Reward = Reward()
  optim: Optim = Optim()
  mesh: Mesh = Mesh()
  compute: Compute = Compute()
  eval: Eval = Eval()
  save: Save = Save()


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The embedded world's documents; see data/arithmetic.py."""

  level: str = "add3"
  wrong: float = 0.12
  """Rate of wrong steps."""
  noticed: float = 0.3
  """Share of the wrong steps that the trace notices and corrects."""
  question_free: float = 0.2
  """Share of documents without the question."""
  documents: int = 60_000


@dataclasses.dataclass(frozen=True)
class Width:
  """Size of a model that is trained from scratch."""

  layers: int = 3
  d_model: int = 96
  heads: int = 4
  kv_heads: int = 2
  head_dim: int = 24
  d_ff: int = 256
  vocab: int = 384
  context: int = 256


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """A pre-training run: tokenizer and model from the corpus alone."""

  corpus: Corpus = Corpus()
  width: Width = Width()
  steps: int = 650
  rows: int = 64
  row_tokens: int = 256
  lr: float = 4e-3
  warmup: int = 50
  seed: int = 0
  eval_every: int = 0
  save_every: int = 0
  optim: Optim = Optim(b2=0.98, weight_decay=0.1)
  mesh: Mesh = Mesh()
  compute: Compute = Compute()
  eval: Eval = Eval()
  sampling: Sampling = Sampling()
  data: Data = Data()
  reward: Reward = Reward()


def to_dict(cfg) -> dict:
  """A config as plain JSON values."""
  return dataclasses.asdict(cfg)


def digest(cfg) -> str:
  """Twelve hex digits that name the config."""
  text = json.dumps(to_dict(cfg), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_dict(kind, values, path=""):
  """The dataclass `kind` from JSON values; an unknown or ill-typed field is an
  Error."""
  if not isinstance(values, dict):
    raise Error(f"config{path}: expected an object, found {type(values).__name__}")
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(values) - set(hints))
  if unknown:
    raise Error(f"config{path}: unknown field {unknown[0]!r} (of {kind.__name__})")
  return kind(**{k: _value(hints[k], v, f"{path}.{k}") for k, v in values.items()})


def _value(hint, value, path):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if dataclasses.is_dataclass(hint):
    return from_dict(hint, value, path)
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      raise Error(f"config{path}: expected a list, found {type(value).__name__}")
    return tuple(_value(args[0], v, f"{path}.{i}") for i, v in enumerate(value))
  if origin is Literal:
    if value not in args:
      raise Error(f"config{path}: {value!r} is none of {', '.join(map(str, args))}")
    return value
  if origin in (types.UnionType, typing.Union):
    if value is None and type(None) in args:
      return None
    return _value(next(a for a in args if a is not type(None)), value, path)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise Error(f"config{path}: expected {hint.__name__}, found {value!r}")
  return value


def phase_at(cfg: Train, step: int) -> tuple[int, Phase]:
  """Index and phase of the update that starts at `step` (the first is step 0)."""
  start = 0
  for i, phase in enumerate(cfg.phases):
    if phase.steps is None or step < start + phase.steps:
      return i, phase
    start += phase.steps
  return len(cfg.phases) - 1, cfg.phases[-1]


def check(cfg: Train) -> None:
  """Refuses a run that cannot work, before anything is loaded; the Error says why."""

  def need(true, text):
    if not true:
      raise Error(text)

  data, sampling = cfg.data, cfg.sampling
  need(cfg.phases, "phases: a run needs at least one")
  need(cfg.steps >= 0, f"steps {cfg.steps}: must be >= 0")
  need(cfg.updates >= 1, f"updates {cfg.updates}: must be >= 1")
  need(data.prompts >= 1, f"data.prompts {data.prompts}: must be >= 1")
  need(data.responses >= 1, f"data.responses {data.responses}: must be >= 1")
  need(
    data.prompts % cfg.updates == 0,
    f"data.prompts {data.prompts} do not divide into {cfg.updates} updates: choose"
    " updates among the divisors of data.prompts",
  )
  for name in ("max_new_tokens", "slots"):
    value = getattr(sampling, name)
    need(value >= 1, f"sampling.{name} {value}: must be >= 1")
  need(
    sampling.temperature > 0,
    "sampling.temperature 0: training needs samples that differ; greedy is for"
    " `pxy sample --greedy`",
  )
  for where, top_p in (("sampling", sampling.top_p), ("eval", cfg.eval.top_p)):
    need(0 < top_p <= 1, f"{where}.top_p {top_p}: must be in (0, 1]")
  need(cfg.eval.samples >= 1 and cfg.eval.problems >= 1, "eval: needs >= 1 of each")
  need(cfg.save_every >= 0, f"save_every {cfg.save_every}: must be >= 0")
  need(cfg.eval_every >= 0, f"eval_every {cfg.eval_every}: must be >= 0")
  need(
    cfg.reward.overlong != "penalty"
    or 1 <= cfg.reward.overlong_buffer <= sampling.max_new_tokens,
    f"reward.overlong_buffer {cfg.reward.overlong_buffer}: must be 1 to"
    f" sampling.max_new_tokens {sampling.max_new_tokens}",
  )
  need(cfg.save.keep >= 1, f"save.keep {cfg.save.keep}: must be >= 1")
  need(
    re.fullmatch(r"(avg|pass|maj)(@\d+)?|score/mean", cfg.save.best),
    f"save.best {cfg.save.best!r}: one of avg, maj, pass@K, score/mean",
  )
  need(cfg.reward.workers >= 1, "reward.workers: must be >= 1")
  need(cfg.reward.deadline > 0, "reward.deadline: must be > 0 seconds")
  need(0 <= cfg.reward.max_failed <= 1, "reward.max_failed: a share, 0 to 1")
  need(
    [cfg.mesh.data, cfg.mesh.fsdp, cfg.mesh.tensor].count(-1) <= 1
    and all(n == -1 or n >= 1 for n in dataclasses.astuple(cfg.mesh)),
    "mesh: axis sizes are >= 1, and at most one is -1 (all that are left)",
  )
  groups = data.prompts // cfg.updates
  copies = set()
  for i, phase in enumerate(cfg.phases):
    at = f"phases.{i}"
    last = i == len(cfg.phases) - 1
    need(phase.terms, f"{at}.terms: a phase needs at least one")
    need(phase.lr > 0, f"{at}.lr {phase.lr}: must be > 0")
    need(
      phase.steps is not None or last,
      f"{at}.steps: only the last phase may be open-ended; give the others a length",
    )
    need(phase.steps is None or phase.steps >= 0, f"{at}.steps: must be >= 0")
    for j, term in enumerate(phase.terms):
      here = f"{at}.terms.{j}"
      need(term.coef > 0, f"{here}.coef {term.coef}: must be > 0")
      if term.advantage in ("grpo", "mean", "rloo"):
        need(
          data.responses >= 2,
          f"{here}.advantage {term.advantage!r} compares the responses of a group:"
          " data.responses must be >= 2",
        )
      if term.space == "marginal" and term.context == "shuffled":
        need(groups >= 2, f"{here}: `shuffled` needs >= 2 prompts per update")
      if term.space == "marginal" and term.context == "mixture":
        copies.add(term.copies)
        need(
          2 <= term.copies <= groups,
          f"{here}.copies {term.copies}: must be 2 to {groups}, the prompts per update",
        )
  need(len(copies) <= 1, "terms: all mixtures of a run need the same number of copies")
