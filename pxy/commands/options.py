"""Options of the commands: one frozen dataclass each; its docstring is the help text.

They say what is asked for; what is done stands in the module of the command's name.
Nothing here imports JAX, so that `pxy COMMAND --help` answers at once.
"""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from pxy import config
from pxy.rl import term


@dataclasses.dataclass(frozen=True)
class Train:
  """Reinforcement learning: `pxy train experiments/dsrl.py --out runs/dsrl`.

  A run folder gets config.json, metrics.jsonl, completions.parquet, checkpoints/, and
  at the end summary.json, report.md and report.html.
  """

  experiment: tyro.conf.Positional[pathlib.Path]
  """A Python file with config()."""
  cfg: Annotated[config.Train, tyro.conf.arg(name="")]
  out: pathlib.Path = pathlib.Path("runs/train")
  """The run's folder."""
  resume: Literal["auto", "never", "must", "anyway"] = "auto"
  """auto: go on from the newest checkpoint if there is one; never: the folder must hold
  no run; must: there must be a checkpoint; anyway: auto, and the config may differ from
  the one before."""
  dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
  """Print the resolved config and the plan (tokens, steps, memory), and exit."""


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """Tokenizer and base model from scratch: `pxy pretrain experiments/base.py`."""

  experiment: tyro.conf.Positional[pathlib.Path]
  """A Python file with config()."""
  cfg: Annotated[config.Pretrain, tyro.conf.arg(name="")]
  out: pathlib.Path = pathlib.Path("runs/pretrain")
  """The run's folder; the model is written to OUT/model."""
  resume: Literal["auto", "never", "must", "anyway"] = "auto"
  """See `pxy train --help`."""
  dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
  """Print the resolved config and the plan, and exit."""


@dataclasses.dataclass(frozen=True)
class Compile:
  """What each program of a run needs on a TPU pod, by the real TPU compiler.

  `pxy compile experiments/qwen3_4b_math.py --topology v5e:8x8`. Needs no TPU and no
  weights, only `pip install 'pxy[tpu]'`. FLOPs, bytes and seconds are of one device;
  the memory holds what else lives there meanwhile, and `x model` is the compiled FLOPs
  over those that the architecture asks for. Exits 1 if a program does not fit.
  """

  experiment: tyro.conf.Positional[pathlib.Path]
  """A Python file with config()."""
  cfg: Annotated[config.Train, tyro.conf.arg(name="")]
  topology: str = "v5e:2x2"
  """CHIP:AxB or CHIP:AxBxC with v4, v5e, v5p or v6e: v5e:8x8, v5p:2x2x4."""
  json: pathlib.Path | None = None
  """Also write the numbers there."""


@dataclasses.dataclass(frozen=True)
class OnTask:
  """What `pxy eval` and `pxy align` have in common: responses of a model to a task."""

  model: tyro.conf.Positional[str]
  """`builtin:tiny`, an HF-style folder, `hf://org/name[@revision]`, a .gguf file, or a
  run folder."""
  task: str = config.Data().task
  """`arithmetic/LEVEL`, a .jsonl or .parquet file, `gym:NAME`, `tfds:NAME`, or a
  mixture; see data.task in `pxy train --help`."""
  split: str = config.Eval().split
  """`train`, `validation` or `test`, or a split that the file's rows name."""
  max_new_tokens: int = config.Sampling().max_new_tokens
  """A response without a stop token ends here."""
  max_prompt_tokens: int = config.Data().max_prompt_tokens
  """Longer prompts are left out."""
  temperature: float = config.Eval().temperature
  """Logits are divided by it; 0 is greedy."""
  top_p: float = config.Eval().top_p
  """Keep the likeliest tokens that together have this probability; 1 keeps all."""
  slots: int = config.Sampling().slots
  """Responses decoded at the same time."""
  grader: str = config.Data().grader
  """`auto`, `arithmetic`, `boxed`, `number`, `math`, `gym`, or a function as
  MODULE_OR_FILE:NAME."""
  template: Literal["chat", "plain"] = "chat"
  """chat: the tokenizer's chat template, or ChatML; plain: the bare text."""
  system: str = ""
  """System message put before the prompt."""
  template_arguments: tuple[str, ...] = ()
  """Variables of the chat template, as NAME=VALUE: enable_thinking=false."""
  seed: int = 0
  """The same seed draws the same responses."""
  step: int | None = None
  """Checkpoint of a run folder; default: the newest."""
  json: pathlib.Path | None = None
  """Also write the numbers there."""


@dataclasses.dataclass(frozen=True)
class Eval(OnTask):
  """avg@k, unbiased pass@k and maj@k with standard errors, lengths, thoughts."""

  samples: int = config.Eval().samples
  """Responses to each problem: the k of avg@k and the largest of pass@k."""
  problems: int = config.Eval().problems
  """The first of the split."""


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
  context: term.Context = config.Term().context
  """What log P(y) sees: the chat start token, the document separator, another prompt,
  the mean over 4 prompts, ...; see rl/context.py."""
  step_size: float = 1e-3
  """Step that is taken: first-order change of log P(y), in nats per token."""
  one_gradient: tyro.conf.FlagCreatePairsOff[bool] = False
  """Hold one gradient at a time, for models of which two do not fit; without numbers
  by block."""
  plot: pathlib.Path | None = None
  """Also draw the plots there (.png)."""


@dataclasses.dataclass(frozen=True)
class Sample:
  """Responses of a model to a prompt: the same sampler as in training."""

  model: tyro.conf.Positional[str]
  """`builtin:tiny`, an HF-style folder, `hf://org/name[@revision]`, a .gguf file, or a
  run folder."""
  prompt: str | None = None
  """The user's message."""
  messages: pathlib.Path | None = None
  """Instead of --prompt, chats: a .json file with a list of messages (role, content),
  or a .jsonl file with a row for each, of any kind that is trained on."""
  n: int = 1
  """Responses to each."""
  greedy: tyro.conf.FlagCreatePairsOff[bool] = False
  """Always the likeliest token."""
  temperature: float = config.Sampling().temperature
  """Logits are divided by it."""
  top_k: int = config.Sampling().top_k
  """Keep the k likeliest tokens; 0 keeps all."""
  top_p: float = config.Sampling().top_p
  """Keep the likeliest tokens that together have this probability; 1 keeps all."""
  max_new_tokens: int = config.Sampling().max_new_tokens
  """A response without a stop token ends here."""
  template: Literal["chat", "plain"] = "chat"
  """chat: the tokenizer's chat template, or ChatML; plain: the bare text."""
  system: str = ""
  """System message put before the prompt."""
  template_arguments: tuple[str, ...] = ()
  """Variables of the chat template, as NAME=VALUE: enable_thinking=false."""
  seed: int = 0
  """The same seed draws the same responses."""
  step: int | None = None
  """Checkpoint of a run folder; default: the newest."""
  json: tyro.conf.FlagCreatePairsOff[bool] = False
  """One JSON object per response: prompt_ids, ids, text, logps, stop."""


@dataclasses.dataclass(frozen=True)
class Export:
  """A Hugging Face folder of a model: `pxy export runs/dsrl --out exported`.

  It holds config.json, safetensors, tokenizer, chat template, generation_config.json
  and a model card; it is read again and compared before it appears.
  """

  model: tyro.conf.Positional[str]
  """`builtin:tiny`, an HF-style folder, `hf://org/name[@revision]`, a .gguf file, or a
  run folder."""
  out: pathlib.Path
  """The folder to make; it must not be there yet."""
  dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
  """Of the tensors in the files."""
  step: int | None = None
  """Checkpoint of a run folder; default: the newest."""


@dataclasses.dataclass(frozen=True)
class Score:
  """Grades of responses that are there already: `pxy score FILE --task math`.

  A row of FILE (.jsonl) has `response` and `answer`, and other columns for graders that
  take them. A row of the result has outcome, score, why and seconds.
  """

  file: tyro.conf.Positional[pathlib.Path]
  """A .jsonl file."""
  task: str = config.Data().grader
  """The grader: `auto` (by the row's data_source), `arithmetic`, `boxed`, `number`,
  `math`, `gym`, or a function as MODULE_OR_FILE:NAME."""
  out: pathlib.Path | None = None
  """Write the grades there, not to stdout."""
  json: pathlib.Path | None = None
  """Write counts and the mean score there."""
  workers: int = config.Reward().workers
  """Processes that grade."""
  deadline: float = config.Reward().deadline
  """Seconds that a sample may take."""
  memory_mb: int = config.Reward().memory_mb
  """Memory that a sample may take."""


@dataclasses.dataclass(frozen=True)
class Data:
  """Reads every row of a file or another source, and says what cannot be used and how
  to write it.

  Rows may be verl's (data_source, prompt, reward_model), TRL's (prompt and columns),
  OpenAI's (messages), or plain: {"prompt": "1 + 2?", "answer": "3"}.
  """

  action: tyro.conf.Positional[Literal["check"]]
  """What to do with it."""
  file: tyro.conf.Positional[str]
  """A .jsonl or .parquet file, or what else data.task may be."""
  task: str = config.Data().grader
  """The grader it is meant for; `math`: also check that it can read the answers."""


@dataclasses.dataclass(frozen=True)
class Report:
  """report.md and report.html; several runs: overlaid curves, seeds pooled."""

  runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
  """Run folders."""
  out: pathlib.Path | None = None
  """Folder of the report; default: the run's own, or runs/report for several."""


CONFIGS = {
  Train: config.Train,
  Pretrain: config.Pretrain,
  Compile: config.Train,
}
"""Those that take an experiment file, and the config that it must give."""
