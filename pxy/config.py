"""What a run is: frozen dataclasses. The only owner of defaults, and all of them data.

An experiment file returns a `Train` (or `Pretrain`); the command line overrides any
field (`--data.task`, `--phases.0.lr`). The run folder keeps it as config.json, and
`digest` names it in every checkpoint. `check` refuses, before anything is loaded, what
cannot work; the range of a number is part of its type (fields.py). A Term checks
itself, since it is also what the losses take from other code.

A training run is a tuple of phases. A phase is one or more terms and an optimizer
setting: NSR-PreRL is one marginal term on negatives, DSRL is that phase followed by
GRPO.
"""

import dataclasses
import json
import math
import re
from typing import Literal

from pxy import fields
from pxy.fields import (
  Count,
  Decay,
  Few,
  Natural,
  NonNegative,
  Nucleus,
  Positive,
  Seed,
  Share,
  Temperature,
)
from pxy.rl import advantage, context, surrogate
from pxy.rl import term as term_lib

Error = fields.Error
Term = term_lib.Term
Schedule = Literal["constant", "cosine", "linear"]
"""Of a learning rate (train/rate.py)."""


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stretch of training with one objective."""

  name: str = "grpo"
  """Its name in records and plots."""
  terms: tuple[Term, ...] = (Term(),)
  """Summands of its loss."""
  steps: Natural | None = None
  """Length in steps; None in the last phase: until the run ends."""
  lr: Positive = 2e-4
  """Learning rate: all through the phase, or the peak of its schedule."""
  schedule: Schedule = "constant"
  """How it goes on from there to the phase's end, where that is another rate."""
  warmup: Natural = 0
  """Steps in which it rises to `lr` first, by equal parts."""
  lr_end: Share = 0.0
  """Share of `lr` at the end of cosine and linear."""
  on_start: Literal["keep", "reset_optimizer"] = "keep"
  """What happens to the optimizer's moments when the phase starts."""

  @property
  def needs_reference(self) -> bool:
    """Whether a term measures the distance to the start-of-run model."""
    return any(term.kl != "none" for term in self.terms)

  @property
  def needs_old(self) -> bool:
    """Whether a term compares with the policy that the responses are of."""
    return any(term.clip != "none" for term in self.terms)

  @property
  def needs_gap(self) -> bool:
    """Whether a marginal term has importance weights, which are conditional."""
    return any(term.space == "marginal" and term.tis != "none" for term in self.terms)

  @property
  def needs_end(self) -> bool:
    """Whether its rates depend on how long it is: without `steps`, on those of the
    run."""
    return self.schedule != "constant"


@dataclasses.dataclass(frozen=True)
class Data:
  """Which problems, and how they become prompts."""

  task: str = "arithmetic/add3"
  """`arithmetic/LEVEL`, `world/KIND` or `world/KIND?seed=N` (data/world_problems.py
  has the kinds), `facts/KIND` (data/facts.py), a .jsonl, .json, .csv or .parquet file
  (also .gz) or several (`data/train-*.parquet`), also of a bucket (`gs://bucket/FILE`),
  `gym:NAME?OPTION=VALUE,...` of reasoning-gym,
  `tfds:NAME?prompt=FEATURE,answer=FEATURE`, `variants:TASK`, `thresholds:TASK`, or a
  mixture of these: `0.7 * TASK + 0.3 * TASK`."""
  columns: str = ""
  """Of files: which column holds what, where it has no usual name:
  `question=problem,answer=solution`; also split, data_source. A.B is B in A."""
  grader: str = "auto"
  """`auto` (by the source's name), `arithmetic`, `boxed`, `number`, `math` (by algebra
  where rules do not decide: docs/graders.md), `short` (names), `choice` (letters),
  `form` (that there is an answer, right or wrong), `gym`, or a function of TRL's or
  verl's signature: `package.module:name` or `path/to/file.py:name`. Of `world/KIND`:
  `answer`, `verified` (`auto`: every hop true as well), `abstain` (wrong is -1,
  `unknown` 0)."""
  rewards: tuple[str, ...] = ()
  """Several graders instead, as NAME=WEIGHT: `math=1 format.py:f=0.2`. The reward is
  the weighted sum of their scores."""
  rollouts: str = ""
  """Stored samples to train on instead of sampling: a folder of `pxy eval --save`, or a
  file of rows with prompt, response and reward, here or in a bucket (docs/samples.md).
  The task is then that of evaluations."""
  prompts: Count = 32
  """Prompts per step (P)."""
  responses: Count = 8
  """Responses per prompt (R)."""
  max_prompt_tokens: Count = 64
  """Longer prompts are left out, and counted."""
  template: str = "chat"
  """chat: the tokenizer's chat template, or ChatML; plain: the bare text; FILE.jinja: a
  chat template of your own, which a run keeps with its model."""
  system: str = ""
  """System message put before each prompt that has none."""
  template_arguments: tuple[str, ...] = ()
  """Variables of the chat template, as NAME=VALUE: `enable_thinking=false`."""

  @property
  def judge(self) -> "Judge":
    """What grades: the grader, or the several rewards."""
    return self.rewards or self.grader


Judge = str | tuple[str, ...]
"""The name of a grader, or several as NAME=WEIGHT."""


def judge_of_evaluation(cfg: "Train | Pretrain") -> Judge:
  """What grades the evaluations' responses."""
  return cfg.eval.grader or cfg.data.judge


def weights(judge: Judge) -> dict[str, float]:
  """Weight of each grader by its name: 1 of one alone, or of one without a weight."""
  if isinstance(judge, str):
    return {judge: 1.0}
  found: dict[str, float] = {}
  for word in judge:
    name, equals, number = word.rpartition("=")
    name = name if equals else word
    try:
      weight = float(number) if equals else 1.0
    except ValueError:
      weight = math.nan
    if not (name and math.isfinite(weight)):
      raise Error(
        f"reward {word!r}: expected NAME=WEIGHT with a number as the weight, as in"
        " math=1 or format.py:f=0.2"
      )
    if name in found:
      raise Error(f"reward {word!r}: {name} is there twice; add the weights")
    found[name] = weight
  return found


@dataclasses.dataclass(frozen=True)
class Sampling:
  """The distribution that responses are drawn from, and its limits."""

  temperature: Temperature = 1.0
  """Logits are divided by it."""
  top_k: Natural = 0
  """Keep the k likeliest tokens; 0 keeps all."""
  top_p: Nucleus = 1.0
  """Keep the likeliest tokens that together have this probability; 1 keeps all."""
  max_new_tokens: Count = 96
  """A response without a stop token ends here."""
  slots: Count = 256
  """Responses decoded at the same time; a finished one makes room for the next."""
  cache_tokens: Natural = 0
  """Tokens of prompts and responses that are held for all slots together, in pages of
  128; 0: as many as all of them can have."""
  tensor: Natural = 0
  """Devices that share one copy of the sampler's weights; 0: as many as mesh.tensor."""


@dataclasses.dataclass(frozen=True)
class Reward:
  """The verifiers' processes, and what becomes of odd samples."""

  workers: Count = 2
  """Processes that grade, while sampling goes on."""
  deadline: Positive = 5.0
  """Seconds a verifier may take for one sample."""
  memory_mb: Count = 1024
  """Memory a worker may take on top of what it starts with."""
  max_failed: Share = 0.1
  """Share of samples without a grade in a step above which the run stops."""
  overlong: Literal["keep", "mask", "penalty"] = "keep"
  """Truncated responses: an ordinary score, excluded, or a linear penalty."""
  overlong_buffer: Count = 16
  """penalty: tokens before max_new_tokens over which it grows from 0 to 1."""
  refill: Few = 0
  """Dynamic sampling: extra rounds of prompts for groups without contrast; 0 is off."""


@dataclasses.dataclass(frozen=True)
class Optim:
  """AdamW. The learning rate belongs to the phase."""

  b1: Decay = 0.9
  """Decay of the mean of gradients."""
  b2: Decay = 0.999
  """Decay of the mean of their squares."""
  eps: Positive = 1e-8
  """Added to the root of the mean square."""
  weight_decay: NonNegative = 0.01
  """Of matrices, times the learning rate; norm scales and biases have none."""
  clip_norm: Positive = 1.0
  """Largest global norm of a gradient."""
  mu_dtype: Literal["float32", "bfloat16"] = "float32"
  """Of the first moment; the second needs float32: in bfloat16 it would not move."""
  offload: bool = False
  """Keep the moments in the host's memory between updates, where the backend can."""


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices per axis; -1 once: all that are left."""

  data: int = 1
  """Copies of everything; rows are split."""
  fsdp: int = -1
  """Rows, parameters and optimizer are split."""
  tensor: int = 1
  """Heads, MLP width and vocabulary are split."""


@dataclasses.dataclass(frozen=True)
class Compute:
  """Precision, memory and shapes of a train step."""

  dtype: Literal["float32", "bfloat16"] = "float32"
  """Of activations; master weights are float32."""
  remat: Literal["auto", "none", "dots", "attention", "full"] = "none"
  """Activations recomputed in the backward pass: none, all but the results of matrix
  products and of attention's kernels (dots), all but those of attention's kernels, or
  all; auto: the first of the last three that a GPU's or TPU's memory has room for, on a
  CPU none."""
  micro_rows: Natural = 0
  """Packed rows per micro-batch; 0: an eighth of an update's, and so many that they
  hold 512 tokens; in pre-training all rows."""
  row_tokens: Natural = 0
  """Tokens of a packed row; 0: the longest prompt and response of the config; on a CPU
  the longest prompt and as many of its responses as make one cheapest, but not for
  mixtures, nor models with windows."""
  vocab_chunk: Count = 8192
  """Vocabulary entries per chunk of the log-probs."""


@dataclasses.dataclass(frozen=True)
class Eval:
  """Evaluation: sampled answers to the first problems of a split."""

  task: str = ""
  """Empty: the training task."""
  split: str = "test"
  """`train`, `validation` or `test`, or a split that the file's rows name."""
  problems: Count = 128
  """The first of the split; fewer if it has fewer."""
  samples: Count = 16
  """Responses to each problem: the k of avg@k and the largest of pass@k."""
  grader: str = ""
  """What is right here, as data.grader names it; empty: as in training. With a reward
  for something else (`form`, a length) say what is right: `auto`."""
  temperature: Temperature = 1.0
  """Of the evaluation's own distribution; 0 is greedy."""
  top_p: Nucleus = 1.0
  """Of the evaluation's own distribution."""


@dataclasses.dataclass(frozen=True)
class Save:
  """Which checkpoints stay."""

  keep: Count = 2
  """Newest checkpoints kept; the one with the best score is kept besides."""
  best: str = "avg"
  """Evaluation metric that names the best checkpoint."""
  grace: Positive = 20.0
  """Seconds from SIGTERM to the end of the process, what it does saved or given up."""


@dataclasses.dataclass(frozen=True)
class Waits:
  """Seconds after which a wait counts as a hang: stacks are written, the run ends."""

  compile: Positive = 3600.0
  """For one program."""
  sample: Positive = 1800.0
  """For one dispatch of the sampler."""
  grade: Positive = 1800.0
  """For the next grades, once all is drawn."""
  update: Positive = 3600.0
  """For the updates of a step."""
  save: Positive = 1800.0
  """For a checkpoint."""
  host: Positive = 3600.0
  """For start-up, and for what the host does between the others."""


@dataclasses.dataclass(frozen=True)
class Guard:
  """What is done when numbers go wrong."""

  bad_steps: Count = 3
  """Steps in a row without a finite loss and gradient, after which ..."""
  on_bad: Literal["stop", "rollback"] = "stop"
  """... the run stops, or goes back to its last good checkpoint and on with another
  data order."""
  rollbacks: Natural = 2
  """Most times that a run goes back."""
  probs_diff_mean: Share = 0.02
  """The run stops when sampler and trainer differ more in the mean probability of a
  drawn token (bfloat16 makes 0.0001 in the demo, up to 0.0006 with top_p 0.9), ..."""
  probs_diff_max: Share = 0.5
  """... or in that of any (0.03, and 0.25 with top_p)."""


@dataclasses.dataclass(frozen=True)
class Train:
  """A reinforcement-learning run."""

  model: str = "builtin:tiny"
  """`builtin:tiny`, `builtin:world`, an HF-style folder, `hf://org/name[@revision]`, a
  .gguf file, or a run folder."""
  phases: tuple[Phase, ...] = (Phase(),)
  """Objectives, one after the other."""
  steps: Natural = 60
  """Batches of rollouts; a finished run goes on when this grows."""
  updates: Count = 1
  """Updates per batch of rollouts; with 1 the old log-probs cost no pass."""
  seed: Seed = 0
  """Of data order, sampling and views."""
  eval_every: Natural = 0
  """Steps between evaluations; 0: only before and after."""
  probe_every: Natural = 0
  """Steps between quick probes of the weights on their own world (`pxy probe --quick`
  without what needs more than the responses); 0: none."""
  save_every: Natural = 20
  """Steps between checkpoints; 0: only the last."""
  mirror: tuple[Literal["tensorboard", "wandb"], ...] = ()
  """Where else the numbers of metrics.jsonl go: TensorBoard (`pip install
  tensorboardX`), or Weights & Biases (`pip install wandb`)."""
  data: Data = Data()
  sampling: Sampling = Sampling()
  reward: Reward = Reward()
  optim: Optim = Optim()
  mesh: Mesh = Mesh()
  compute: Compute = Compute()
  eval: Eval = Eval()
  save: Save = Save()
  guard: Guard = Guard()
  waits: Waits = Waits()

  @property
  def needs_reference(self) -> bool:
    """Whether a phase needs the start-of-run model beside the one that is trained: for
    a KL term, or as the old policy of stored samples."""
    return any(
      phase.needs_reference or (self.data.rollouts and phase.needs_old)
      for phase in self.phases
    )


@dataclasses.dataclass(frozen=True)
class Corpus:
  """An embedded world's documents; see data/arithmetic.py and data/world.py."""

  kind: Literal["arithmetic", "world"] = "arithmetic"
  """Which world: sums, or facts about entities."""
  level: str = "add3"
  """Difficulty of arithmetic: a level of data/arithmetic.py."""
  wrong: Share = 0.12
  """Rate of wrong steps."""
  noticed: Share = 0.3
  """Share of arithmetic's wrong steps that the trace notices and corrects."""
  question_free: Share = 0.2
  """Share of documents without the question."""
  documents: Count = 60_000
  """Size of the corpus."""


@dataclasses.dataclass(frozen=True)
class Width:
  """Size of a model that is trained from scratch."""

  layers: Count = 3
  """Blocks of attention and MLP."""
  d_model: Count = 96
  """Width of the residual stream."""
  heads: Count = 4
  """Query heads."""
  kv_heads: Count = 2
  """Key and value heads; they divide heads."""
  head_dim: Count = 24
  """Width of a head; even."""
  d_ff: Count = 256
  """Width of the MLP."""
  vocab: Count = 384
  """Pieces of the tokenizer, at most; `world` has its own, all of its words."""
  context: Count = 256
  """Most tokens of a sequence."""
  tied: bool = True
  """The head is the transposed embedding."""
  embed_std: Positive = 0.02
  """Spread of the embedding before training; a head of its own allows a larger one."""


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """A pre-training run: tokenizer and model from the corpus alone."""

  corpus: Corpus = Corpus()
  width: Width = Width()
  steps: Count = 650
  """Updates."""
  rows: Count = 64
  """Packed rows per update."""
  row_tokens: Count = 256
  """Tokens of a packed row."""
  lr: Positive = 4e-3
  """Peak of the learning rate."""
  schedule: Schedule = "cosine"
  """How it goes on from there to the run's end."""
  warmup: Natural = 50
  """Steps in which the learning rate rises to its peak."""
  lr_end: Share = 0.1
  """Share of the peak at the end of cosine and linear."""
  seed: Seed = 0
  """Of corpus, weights and order."""
  eval_every: Natural = 0
  """Steps between evaluations; 0: only after."""
  save_every: Natural = 0
  """Steps between checkpoints; 0: only the last."""
  optim: Optim = Optim(b2=0.98, weight_decay=0.1)
  mesh: Mesh = Mesh()
  compute: Compute = Compute()
  eval: Eval = Eval()
  sampling: Sampling = Sampling()
  data: Data = Data()
  reward: Reward = Reward()
  save: Save = Save(keep=1)
  guard: Guard = Guard()
  waits: Waits = Waits()
  mirror: tuple[Literal["tensorboard", "wandb"], ...] = ()
  """As in `pxy train`."""


def digest(cfg) -> str:
  """Twelve hex digits that name the config."""
  import hashlib  # it loads OpenSSL: not for --help

  text = json.dumps(fields.to_dict(cfg), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def phase_at(cfg: Train, step: int) -> tuple[int, Phase]:
  """Index and phase of the update that starts at `step` (the first is step 0)."""
  start = 0
  for i, phase in enumerate(cfg.phases):
    if phase.steps is None or step < start + phase.steps:
      return i, phase
    start += phase.steps
  return len(cfg.phases) - 1, cfg.phases[-1]


def span(cfg: Train, number: int) -> tuple[int, int]:
  """First step of a phase, and the one after its last; where the phase is open-ended,
  the run's."""
  start = sum(phase.steps or 0 for phase in cfg.phases[:number])
  steps = cfg.phases[number].steps
  return start, cfg.steps if steps is None else start + steps


def passes(cfg: Train, phase: Phase) -> tuple[str, ...]:
  """What a step of the phase scores its responses for beside the update, a forward pass
  each: `old` log-probs, the `ref`erence's, the `gap` of importance weights."""
  asked = {
    "old": cfg.updates > 1 or bool(cfg.data.rollouts and phase.needs_old),
    "ref": phase.needs_reference,
    "gap": phase.needs_gap,
  }
  return tuple(name for name, on in asked.items() if on)


def check(cfg: Train | Pretrain) -> None:
  """Refuses a run that cannot work, before anything is loaded; the Error says why."""
  fields.from_dict(type(cfg), fields.to_dict(cfg))  # names, types and ranges
  sizes = dataclasses.astuple(cfg.mesh)
  fields.need(
    sizes.count(-1) <= 1 and all(n == -1 or n >= 1 for n in sizes),
    "mesh: axis sizes are >= 1, and at most one is -1 (all that are left)",
  )
  fields.need(
    cfg.sampling.temperature > 0,
    "sampling.temperature 0: training needs samples that differ; greedy is for"
    " `pxy sample --greedy`",
  )
  fields.need(
    cfg.data.template in ("chat", "plain") or cfg.data.template.endswith(".jinja"),
    f"data.template {cfg.data.template!r}: must be chat, plain or FILE.jinja",
  )
  fields.need(
    not cfg.data.rewards or cfg.data.grader == Data().grader,
    f"data.grader {cfg.data.grader!r} beside data.rewards: name all graders there",
  )
  weights(cfg.data.judge)
  weights(judge_of_evaluation(cfg))
  _check_train(cfg) if isinstance(cfg, Train) else _check_pretrain(cfg)


def _check_pretrain(cfg: Pretrain) -> None:
  fields.need(not cfg.data.rollouts, "data.rollouts: for pxy train alone; leave it out")
  micro, context = cfg.compute.micro_rows or cfg.rows, cfg.width.context
  fields.need(
    cfg.rows % micro == 0,
    f"rows {cfg.rows}: must divide by compute.micro_rows {micro}",
  )
  fields.need(
    cfg.row_tokens <= context,
    f"row_tokens {cfg.row_tokens}: must be at most width.context {context}",
  )
  asked = cfg.data.max_prompt_tokens + cfg.sampling.max_new_tokens
  fields.need(
    asked <= context,
    f"width.context {context}: the evaluation may need {asked} tokens; raise it, or"
    " lower data.max_prompt_tokens or sampling.max_new_tokens",
  )


def _check_train(cfg: Train) -> None:
  data, sampling = cfg.data, cfg.sampling
  fields.need(cfg.phases, "phases: a run needs at least one")
  fields.need(
    data.prompts % cfg.updates == 0,
    f"data.prompts {data.prompts} do not divide into {cfg.updates} updates: choose"
    " updates among the divisors of data.prompts",
  )
  fields.need(
    cfg.reward.overlong != "penalty"
    or cfg.reward.overlong_buffer <= sampling.max_new_tokens,
    f"reward.overlong_buffer {cfg.reward.overlong_buffer}: must be 1 to"
    f" sampling.max_new_tokens {sampling.max_new_tokens}",
  )
  fields.need(
    re.fullmatch(r"(avg|pass|maj)(@\d+)?|score/mean", cfg.save.best),
    f"save.best {cfg.save.best!r}: one of avg, maj, pass@K, score/mean",
  )
  fields.need(
    not data.rollouts or (sampling.top_p == 1 and not sampling.top_k),
    "data.rollouts: stored responses may have tokens to which sampling.top_p or top_k"
    " leaves no probability; set top_p 1 and top_k 0",
  )
  groups = data.prompts // cfg.updates
  copies = set()
  for i, phase in enumerate(cfg.phases):
    at = f"phases.{i}"
    last = i == len(cfg.phases) - 1
    fields.need(phase.terms, f"{at}.terms: a phase needs at least one")
    fields.need(
      phase.steps is not None or last,
      f"{at}.steps: only the last phase may be open-ended; give the others a length",
    )
    _check_rate(cfg, i)
    for j, term in enumerate(phase.terms):
      _check_term(f"{at}.terms.{j}", term, groups, data)
      copies.add(context.of(term).copies(term))
  fields.need(
    len(copies - {1}) <= 1,
    "terms: all mixtures of a run need the same number of copies",
  )


def _check_rate(cfg: Train, number: int) -> None:
  """Refuses a warm-up that its phase does not hold."""
  phase, (start, end) = cfg.phases[number], span(cfg, number)
  known = phase.steps is not None or phase.needs_end
  fields.need(
    not known or end <= start or phase.warmup + phase.needs_end <= end - start,
    f"phases.{number}.warmup {phase.warmup}: the phase has {end - start} steps; make it"
    " shorter, or the phase longer",
  )


def _check_term(at: str, term: Term, groups: int, data: Data) -> None:
  """`groups` are the prompts of an update. Functions of the user's own are tried."""
  try:
    contrast = advantage.contrasts(term, data.prompts, data.responses)
    surrogate.check(term)
  except Error as error:
    raise Error(f"{at}.{error}") from None
  fields.need(
    contrast or data.responses >= 2,
    f"{at}.advantage {term.advantage!r} compares the responses of a group:"
    " data.responses must be >= 2",
  )
  fields.need(
    term.advantage != "pass-at-k" or term.k < data.responses,
    f"{at}.k {term.k}: must be below data.responses {data.responses}, or pass@k of a"
    " group is 0 or 1, and all advantages are 0",
  )
  before = context.of(term)
  copies = f" with copies {term.copies}" if before.copies(term) > 1 else ""
  fields.need(
    before.groups(term) <= groups,
    f"{at}.context {term.context!r}{copies} needs {before.groups(term)} prompts per"
    f" update, there are {groups}",
  )
