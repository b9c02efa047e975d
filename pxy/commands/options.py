"""Options of the commands: one frozen dataclass each; its docstring is the help text.

They say what is asked for; what is done stands in the module of the command's name. An
option that several commands have is a type with its text, and one that is a field of
the config has its type and text from there. Nothing here imports JAX, so that `pxy
COMMAND --help` answers at once.
"""

import ast
import dataclasses
import functools
import itertools
import pathlib
import sys
import typing
from typing import Annotated, Literal

import tyro

from pxy import config


@functools.cache
def _texts(module: str) -> dict[tuple[str, str], str]:
  """The string under each field of a module's records, by (class, field)."""
  source = pathlib.Path(sys.modules[module].__file__).read_text(encoding="utf-8")
  found = {}
  for record in ast.parse(source).body:
    for field, text in itertools.pairwise(getattr(record, "body", ())):
      if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
        found[record.name, field.target.id] = " ".join(text.value.value.split())
  return found


def _like(kind, name: str):
  """An option that is a field of the config: its type, and its text there."""
  hint = typing.get_type_hints(kind, include_extras=True)[name]
  text = _texts(kind.__module__)[kind.__name__, name]
  return Annotated[hint, tyro.conf.arg(help=text)]


Cfg = tyro.conf.arg(name="")
Flag = tyro.conf.FlagCreatePairsOff[bool]
Experiment = Annotated[
  tyro.conf.Positional[str],
  tyro.conf.arg(
    metavar="EXPERIMENT",
    help="One that came with pxy (dsrl), or a file with config() (my.py); a base also"
    " takes a method (qwen3_4b_math:grpo, my.py:grpo). The command alone lists them.",
  ),
]
Resume = Annotated[
  Literal["auto", "never", "must"],
  tyro.conf.arg(
    help="auto: go on from the newest checkpoint if there is one; never: the folder"
    " must hold no run; must: there must be a checkpoint."
  ),
]
Accept = Annotated[
  tyro.conf.UseAppendAction[tuple[str, ...]],
  tyro.conf.arg(
    metavar="NAME",
    help="A run goes on only as what it was: the same config, data, graders, template,"
    " tokenizer and records. This one difference is no reason to refuse it, and is"
    " noted in used.json; the refusal says its NAME (seed, data, grader, ...). May be"
    " given several times.",
  ),
]
Folder = Annotated[str, tyro.conf.arg(metavar="FOLDER")]
DryRun = Annotated[
  Flag,
  tyro.conf.arg(help="Print the resolved config and the plan, and exit."),
]
Model = tyro.conf.Positional[_like(config.Train, "model")]
Models = Annotated[
  tyro.conf.Positional[tuple[str, ...]],
  tyro.conf.arg(
    metavar="MODEL...",
    help="builtin:world, an HF-style folder, hf://org/name[@revision], a .gguf file or"
    " the folder of a run, here or in a bucket (gs://bucket/folder); one or several.",
  ),
]
Rewards = Annotated[
  tyro.conf.UseAppendAction[tuple[str, ...]],
  tyro.conf.arg(
    metavar="NAME=WEIGHT",
    help="Several graders by weight instead of one, a time for each: --reward math=1"
    " --reward format.py:f=0.2.",
  ),
]
Seed = Annotated[int, tyro.conf.arg(help="The same seed draws the same responses.")]
Step = Annotated[
  int | None,
  tyro.conf.arg(help="Checkpoint of a run folder; default: the newest."),
]
Steps = Annotated[
  tyro.conf.UseAppendAction[tuple[int | Literal["all"], ...]],
  tyro.conf.arg(
    help="Checkpoint of a run folder, several times if you like, or `all`; default:"
    " the newest."
  ),
]
Json = Annotated[
  pathlib.Path | None, tyro.conf.arg(help="Also write the numbers there.")
]
TopP = _like(config.Sampling, "top_p")
MaxNewTokens = _like(config.Sampling, "max_new_tokens")
Columns = _like(config.Data, "columns")
Template = _like(config.Data, "template")
System = _like(config.Data, "system")
TemplateArguments = _like(config.Data, "template_arguments")


@dataclasses.dataclass(frozen=True)
class Train:
  """Reinforcement learning: `pxy train dsrl --out runs/dsrl`.

  A run folder gets config.json, metrics.jsonl, completions.parquet, checkpoints/, and
  at the end summary.json, report.md and report.html.
  """

  experiment: Experiment
  cfg: Annotated[config.Train, Cfg]
  out: Folder = "runs/train"
  """The run's folder, here or in a bucket (gs://bucket/folder)."""
  reward: Rewards = ()
  rollouts: _like(config.Data, "rollouts") = ""
  resume: Resume = "auto"
  accept: Accept = ()
  dry_run: DryRun = False

  def asked(self) -> config.Train:
    """The config with what has an option of its own."""
    data = self.cfg.data
    if self.reward:  # in place of the experiment's
      own = config.Data().grader
      data = dataclasses.replace(data, grader=own, rewards=self.reward)
    if self.rollouts:
      data = dataclasses.replace(data, rollouts=self.rollouts)
    return dataclasses.replace(self.cfg, data=data)


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """Tokenizer and base model from scratch: `pxy pretrain base --out runs/base`."""

  experiment: Experiment
  cfg: Annotated[config.Pretrain, Cfg]
  out: Folder = "runs/pretrain"
  """The run's folder, here or in a bucket; the model is written to OUT/model."""
  resume: Resume = "auto"
  accept: Accept = ()
  dry_run: DryRun = False


@dataclasses.dataclass(frozen=True)
class Compile:
  """What each program of a run needs on a TPU pod, by the real TPU compiler.

  `pxy compile qwen3_4b_math --topology v5e:8x8`. Needs no TPU and no weights, only `pip
  install 'jax[tpu]'`. FLOPs, bytes and seconds are of one device; the memory holds what
  else lives there meanwhile, and `x model` is the compiled FLOPs over those that the
  architecture asks for. Exits 1 if a program does not fit.
  """

  experiment: Experiment
  cfg: Annotated[config.Train, Cfg]
  topology: str = "v5e:2x2"
  """CHIP:AxB or CHIP:AxBxC with v4, v5e, v5p or v6e: v5e:8x8, v5p:2x2x4."""
  lengths: str | None = None
  """Also the bound of a whole step whose responses have these tokens:
  `mean=1500,p95=5000,max=8192`, with `,prompt=300` where prompts are not at their
  longest; or a run's folder, whose last step had them."""
  json: Json = None


@dataclasses.dataclass(frozen=True)
class OnTask:
  """What `pxy eval` and `pxy align` have in common: responses of a model to a task."""

  model: Model
  task: str = config.Data().task
  """`arithmetic/LEVEL`, `world/KIND`, `facts/KIND`, a .jsonl, .json, .csv or .parquet
  file or several, `gym:NAME`, `tfds:NAME`, `variants:TASK`, `thresholds:TASK`, or a
  mixture; see data.task in `pxy train --help`."""
  columns: Columns = config.Data().columns
  split: _like(config.Eval, "split") = config.Eval().split
  max_new_tokens: MaxNewTokens = config.Sampling().max_new_tokens
  max_prompt_tokens: _like(config.Data, "max_prompt_tokens") = (
    config.Data().max_prompt_tokens
  )
  temperature: float = config.Eval().temperature
  """Logits are divided by it; 0 is greedy."""
  top_p: TopP = config.Eval().top_p
  slots: _like(config.Sampling, "slots") = config.Sampling().slots
  grader: _like(config.Data, "grader") = config.Data().grader
  reward: Rewards = ()
  template: Template = config.Data().template
  system: System = config.Data().system
  template_arguments: TemplateArguments = config.Data().template_arguments
  seed: Seed = 0
  step: Step = None
  json: Json = None


@dataclasses.dataclass(frozen=True)
class Eval(OnTask):
  """avg@k, unbiased pass@k and maj@k with standard errors, lengths, thoughts.

  `pxy eval builtin:tiny runs/s1 --task A --task B --save samples` has a column for each
  model and task, and keeps every response in files (docs/samples.md). Asked again with
  more --samples, --problems or --contexts, it draws what is missing; so it does after
  it was killed.
  """

  model: Models
  task: Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
      help="`arithmetic/LEVEL`, `world/KIND`, a .jsonl or .parquet file, `gym:NAME`,"
      " `tfds:NAME`, or a mixture; see data.task in `pxy train --help`. May be given"
      f" several times; default: {config.Data().task}."
    ),
  ] = ()
  step: Steps = ()
  samples: _like(config.Eval, "samples") = config.Eval().samples
  problems: _like(config.Eval, "problems") = config.Eval().problems
  save: Folder | None = None
  """Folder that keeps every response: ids, text, log p, grade, answer; here or in a
  bucket (gs://bucket/folder). What it has already is not drawn again."""
  contexts: str = ""
  """With --save: log p of each response after these as well, with commas: `start` and
  `document` (lone tokens), `other` (another problem's prompt)."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """What `pxy probe` and `pxy bound` have in common: stored samples, and how many."""

  model: Models
  task: Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
      help="Instead of the tests of the model's own world: what data.task may be, with"
      " the columns of docs/data.md; several times if you like."
    ),
  ] = ()
  split: _like(config.Eval, "split") = config.Eval().split
  problems: int = 128
  """Of each --task."""
  samples: int = 32
  """Responses to each of them."""
  columns: Columns = config.Data().columns
  quick: Flag = False
  """A fortieth of the work on an embedded world: for a look, not for a claim."""
  grader: _like(config.Data, "grader") = config.Data().grader
  max_prompt_tokens: _like(config.Data, "max_prompt_tokens") = (
    config.Data().max_prompt_tokens
  )
  max_new_tokens: MaxNewTokens = config.Sampling().max_new_tokens
  slots: _like(config.Sampling, "slots") = 256
  temperature: float = config.Eval().temperature
  """Logits are divided by it."""
  top_p: TopP = config.Eval().top_p
  template: Template = config.Data().template
  system: System = config.Data().system
  template_arguments: TemplateArguments = config.Data().template_arguments
  seed: Seed = 0
  save: Folder = "runs/samples"
  """Folder of the stored samples, here or in a bucket (gs://bucket/folder); what it has
  is not drawn again."""
  json: Json = None


@dataclasses.dataclass(frozen=True)
class Probe(Measured):
  """What a model is like beyond its accuracy: `pxy probe runs/dsrl --against BASE`.

  Robustness, calibration, hallucination, bias, knowledge kept and diversity, and P(y)
  beside P(y|x). Each number has a 95 % interval over problems, and what it would be if
  there were nothing to see (docs/measures.md). Models that are given together, and the
  one they are held --against, answer the same questions.
  """

  what: str = ""
  """Parts, with commas: bound, robust, calibration, hallucination, bias, kept,
  diversity; default: all."""
  against: str | None = None
  """A base: differences to it, paired by problem, and KL divergences from it."""
  step: Steps = ()
  p_true: Flag = False
  """With --task: also ask the model whether each of its answers is true, P(True), and
  how likely it is to be right; two more prompts for each different answer."""
  text: pathlib.Path | None = None
  """A .txt file whose paragraphs are scored, for kept: held-out text."""
  by_problem: pathlib.Path | None = None
  """Also writes what the measures are made of, problem by problem, to this .parquet
  file (docs/measures.md): for statistics of your own."""


@dataclasses.dataclass(frozen=True)
class Gate(Measured):
  """Does a model pass? `pxy gate RUN --against BASE GATES.py`; exits 1 if it does not.

  A gate is a bound on any measure of `pxy probe` and `pxy bound`, and is passed where
  the whole 95 % interval lies within it (docs/gates.md). Only what the gates name is
  asked. A run folder keeps the result, for its report and its exported model card. In
  MODEL's place may stand a FILE.json that `pxy probe --against` wrote: nothing is run.
  """

  model: Model
  gates: tyro.conf.Positional[str] = "default"
  """A file whose gates() returns pxy.measures.gate.Gates, or one that came with pxy."""
  against: str | None = None
  """The base, for differences to it, paired by problem."""
  step: Step = None
  text: pathlib.Path | None = None
  """A .txt file whose paragraphs are scored, for kept: held-out text."""

  def probe(self, what: str, p_true: bool) -> Probe:
    """What `pxy probe` is asked for the numbers."""
    shared = {x.name: getattr(self, x.name) for x in dataclasses.fields(Measured)}
    return Probe(
      **shared | {"model": (self.model,)},
      what=what, against=self.against, p_true=p_true, text=self.text,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bound(Measured):
  """Does RL leave what its base could already do? `pxy bound builtin:world runs/grpo`.

  pass@k of the base and of each run to a quarter of the samples, and at all of them;
  their difference and where the curves cross; what was gained and lost, beside what two
  halves of the base's own samples gain and lose; how likely what a run writes is to the
  base. Without a run: the base's own curves.
  """

  guess: Flag = True
  """Without it, answers without reasoning are asked for too, and what can be guessed
  is marked (worlds)."""
  matched: Flag = False
  """Also sample the base at the temperature at which its answers have the entropy of
  the run's, and the run at that of the base's."""
  plot: pathlib.Path | None = None
  """Also draw the curves there (.png)."""


@dataclasses.dataclass(frozen=True)
class Align(OnTask):
  """Gradients of log P(y) and log P(y|x): `pxy align MODEL --task TASK --n 64`.

  For each sampled response the inner product and cosine of the two gradients, by block
  of parameters and split by right and wrong; the gap between the two log-probs by
  position and entropy; and what a small step on log P(y) really does to log P(y|x). A
  run folder keeps the result and shows it in its report.
  """

  n: int = 64
  """Responses that are measured."""
  responses: int = 4
  """Responses to each problem."""
  context: _like(config.Term, "context") = config.Term().context
  step_size: float = 1e-3
  """Step that is taken: first-order change of log P(y), in nats per token."""
  one_gradient: Flag = False
  """Hold one gradient at a time, for models of which two do not fit; without numbers
  by block."""
  plot: pathlib.Path | None = None
  """Also draw the plots there (.png)."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """Responses of a model to a prompt: the same sampler as in training."""

  model: Model
  prompt: str | None = None
  """The user's message."""
  messages: pathlib.Path | None = None
  """Instead of --prompt, chats: a .json file with a list of messages (role, content),
  or a .jsonl file with a row for each, of any kind that is trained on."""
  n: int = 1
  """Responses to each."""
  greedy: Flag = False
  """Always the likeliest token."""
  temperature: _like(config.Sampling, "temperature") = config.Sampling().temperature
  top_k: _like(config.Sampling, "top_k") = config.Sampling().top_k
  top_p: TopP = config.Sampling().top_p
  max_new_tokens: MaxNewTokens = config.Sampling().max_new_tokens
  template: Template = config.Data().template
  system: System = config.Data().system
  template_arguments: TemplateArguments = config.Data().template_arguments
  seed: Seed = 0
  step: Step = None
  json: Flag = False
  """One JSON object per response: prompt_ids, ids, text, logps, stop."""


@dataclasses.dataclass(frozen=True)
class Export:
  """A Hugging Face folder of a model: `pxy export runs/dsrl --out exported`.

  It holds config.json, safetensors, tokenizer, chat template, generation_config.json
  and a model card; it is read again and compared before it appears.
  """

  model: Model
  out: Folder
  """The folder to make, new, here or in a bucket (gs://bucket/folder)."""
  dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
  """Of the tensors in the files."""
  step: Step = None


@dataclasses.dataclass(frozen=True)
class Score:
  """Grades of responses that are there already: `pxy score FILE --task math`.

  A row of FILE (.jsonl) has `response` and `answer`, and other columns for graders that
  take them; or FILE is one that `pxy eval --save` wrote, with its problems beside it. A
  row of the result has outcome, score, why and seconds.
  """

  file: tyro.conf.Positional[str]
  """A .jsonl file, here or in a bucket (gs://bucket/folder/FILE)."""
  task: str = config.Data().grader
  """The grader: `auto` (by the row's data_source), `arithmetic`, `boxed`, `number`,
  `math`, `short`, `choice`, `gym`, `answer`, `verified`, `abstain`, or a function as
  MODULE_OR_FILE:NAME."""
  reward: Rewards = ()
  out: pathlib.Path | None = None
  """Write the grades there, not to stdout."""
  json: pathlib.Path | None = None
  """Write counts and the mean score there."""
  workers: int = config.Reward().workers
  """Processes that grade."""
  deadline: _like(config.Reward, "deadline") = config.Reward().deadline
  memory_mb: _like(config.Reward, "memory_mb") = config.Reward().memory_mb


@dataclasses.dataclass(frozen=True)
class Data:
  """Reads every row of a file or another source, and says what cannot be used and how
  to write it.

  Rows may be verl's (data_source, prompt, reward_model), TRL's (prompt and columns),
  OpenAI's (messages), ShareGPT's (conversations), Alpaca's (instruction, output), or
  plain: {"prompt": "1 + 2?", "answer": "3"}.
  """

  action: tyro.conf.Positional[Literal["check"]]
  """What to do with it."""
  file: tyro.conf.Positional[str]
  """A .jsonl, .json, .csv or .parquet file, here or at gs://, or another data.task."""
  task: str = config.Data().grader
  """The grader it is meant for; `math`: also check that it can read the answers."""
  columns: Columns = config.Data().columns


@dataclasses.dataclass(frozen=True)
class Doctor:
  """Would a run work on this machine? `pxy doctor --out runs/first`; exits 1 if not.

  Packages, chips, memory, disk, shared memory, open files, compiled programs, the Hub,
  and numbers from every device: a line each, and how to mend what is not well
  (docs/doctor.md). Needs neither a model nor an experiment, and trains nothing.
  """

  out: str = "runs"
  """Folder that runs are to go to, or a gs://BUCKET/FOLDER."""
  json: Json = None


@dataclasses.dataclass(frozen=True)
class Report:
  """report.md and report.html; several runs: overlaid curves, seeds pooled."""

  runs: Annotated[
    tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER...")
  ]
  """Run folders, here or in a bucket (gs://bucket/folder)."""
  out: Folder | None = None
  """Folder of the report; default: the run's own, or runs/report for several."""


CONFIGS = {
  Train: config.Train,
  Pretrain: config.Pretrain,
  Compile: config.Train,
}
"""Those that take an experiment, and the config that it must give."""


@dataclasses.dataclass(frozen=True)
class Study:
  """Methods x worlds x seeds, and what they say of each claim: `pxy study claims`.

  Each cell is a plain `pxy train` and a `pxy probe` in a folder of its own. A cell that
  is done is left alone, one that was killed goes on; one that fails is a row of the
  result. The folder gets README.md, its figures and results.json. Exits 1 if a cell
  failed.
  """

  study: tyro.conf.Positional[str]
  """One that came with pxy, or a file whose study() returns a pxy.study.plan.Study."""
  out: Folder = "runs/study"
  """The study's folder, here or in a bucket (gs://bucket/folder); with --ray: one that
  all nodes share, or in a bucket."""
  jobs: Annotated[int, "1 to 2147483647"] = 1
  """Cells at a time on one machine, whose cores are shared among them."""
  ray: str | None = None
  """Run cells as tasks of a Ray: `local` starts one on this machine; `auto`, HOST:6379
  or ray://HOST:10001 is a cluster, with pxy on every node."""
  cell: str | None = None
  """Only this one, WORLD/ARM/seedN, as an element of a job array does; or several, by a
  pattern: `world/*`."""
  report: pathlib.Path | None = None
  """Run nothing: write there what the cells that are done say, and exit."""
  pack: pathlib.Path | None = None
  """Run nothing: write there, as a zip, what a report needs of the cells that are done,
  and exit. Unpacked elsewhere it is an --out whose cells are done."""
  print: Literal["slurm"] | None = None
  """Print a Slurm job array of the cells that are left, and exit."""
  dry_run: Annotated[
    Flag,
    tyro.conf.arg(
      help="Print the cells, and what they will cost: three steps of each"
      " world are measured where no cell is done yet."
    ),
  ] = False
