"""The command line: `pxy COMMAND --help` shows every option and its default.

Options come from the config dataclasses (tyro), so the defaults stand in config.py
alone. An experiment is a Python file whose `config()` returns a config; any field of it
can be overridden: `pxy train experiments/dsrl.py --phases.0.lr 1e-5 --seed 1 --out
runs/s1`.

Errors that the user can mend are one line on stderr and exit code 2.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import os
import pathlib
import re
import sys
from typing import Annotated, Literal

import tyro

from pxy import config, files, malloc, records

COMMANDS = {
  "pretrain": "train a tokenizer and a base model from scratch",
  "train": "reinforcement learning on P(y|x) and P(y)",
  "eval": "avg@k, pass@k, maj@k, lengths and thoughts of a model on a task",
  "align": "gradients of log P(y) and log P(y|x), and what a step on one does",
  "sample": "responses of a model to a prompt",
  "export": "a Hugging Face folder of a model, for transformers and vLLM",
  "compile": "memory, FLOPs and collectives of a run on a TPU pod, without one",
  "score": "grades of responses in a file, by any grader",
  "report": "report.md and report.html of one or several runs",
  "data": "`pxy data check TASK`: validate every row of a file or other source",
}


def main(argv: list[str] | None = None) -> None:
  """Entry point of `pxy`; exits 0, or 2 with one line."""
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ("-h", "--help", "help"):
    print("usage: pxy COMMAND [OPTIONS]\n")
    print("\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items()))
    print("\n`pxy COMMAND --help` explains a command; START at `make demo`.")
    return
  if argv[0] == "--version":
    from pxy import __version__

    print(__version__)
    return
  malloc.reuse()
  try:
    _run(argv[0], argv[1:])
  except config.Error as error:
    print(f"pxy: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(2) from None
  except BrokenPipeError:  # `pxy ... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None
  except OSError as error:  # a full disk, say
    where = f"{error.filename}: " if error.filename else ""
    print(f"pxy: {where}{error.strerror or error}", file=sys.stderr)
    raise SystemExit(2) from None


def _run(command: str, argv: list[str]) -> None:
  if command not in COMMANDS:
    near = difflib.get_close_matches(command, COMMANDS, 1)
    hint = f"is it {near[0]!r}? " if near else ""
    raise config.Error(
      f"unknown command {command!r}; {hint}there are {', '.join(COMMANDS)}"
    )
  globals()[f"_{command}"](argv)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
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
class PretrainOptions:
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


def _train(argv):
  options = _options(TrainOptions, config.Train, argv)
  from pxy import loop, plan
  from pxy.parallel import process

  if options.dry_run:
    plan.show(options.cfg)
    return
  with process.joined():
    loop.train(options.cfg, options.out, resume=options.resume)


@dataclasses.dataclass(frozen=True)
class CompileOptions:
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


def _compile(argv):
  options = _options(CompileOptions, config.Train, argv)
  os.environ["JAX_PLATFORMS"] = "cpu"  # the pod's chips are described, not used
  from pxy.aot import show

  if not show.show(options.cfg, options.topology, options.json):
    raise SystemExit(1)


def _pretrain(argv):
  options = _options(PretrainOptions, config.Pretrain, argv)
  from pxy import plan, pretrain
  from pxy.parallel import process

  process.alone("pretrain")
  if options.dry_run:
    plan.show(options.cfg)
    return
  pretrain.pretrain(options.cfg, options.out, resume=options.resume)


def _options(kind, config_kind, argv):
  """Parses argv over the defaults of the experiment file that it names."""
  named = next((word for word in argv if word.endswith(".py")), None)
  if named is None and not {"-h", "--help"} & set(argv):
    raise config.Error("name an experiment file, such as experiments/dsrl.py")
  cfg = experiment(pathlib.Path(named), config_kind) if named else config_kind()
  return _parse(kind, argv, kind(experiment=tyro.MISSING, cfg=cfg))


def _parse(kind, argv, default=None):
  """tyro, with its boxed errors folded to one line (the nearest option is in it)."""
  name = kind.__name__.removesuffix("Options").lower()
  stderr = io.StringIO()
  try:
    with contextlib.redirect_stderr(stderr):
      return tyro.cli(kind, args=argv, default=default, prog=f"pxy {name}")
  except SystemExit as stop:
    if stop.code == 0:  # --help
      raise
    text = re.sub(r"([╭╮╰╯│─\s]|-{3,})+", " ", stderr.getvalue()).strip()
    text = re.sub(r"^[A-Z][a-z]+ (options|error|argument|choice) (?=\S)", "", text)
    text = text.replace("Error parsing cfg.", "")
    text = re.sub(r"(Argument helptext:|For full helptext,).*$", "", text).strip()
    raise config.Error(f"{text[:300]} (see pxy {name} --help)") from None


def experiment(path: pathlib.Path, kind):
  """The config of an experiment file: the value of its `config()`, of type `kind`."""
  if not path.is_file():
    near = (
      sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    )
    raise config.Error(
      f"experiment {path}: no such file"
      + (f"; {path.parent} has {', '.join(near)}" if near else "")
    )
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise config.Error(f"experiment {path}: not a Python file (NAME.py with config())")
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(path.parent.resolve()))
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, "config") or not callable(module.config):
      raise config.Error("it defines no function config()")
    value = module.config()
    if isinstance(value, kind):
      # As config.json gives it back: tuples for lists, 1.0 for 1, or an Error.
      value = records.from_dict(kind, records.to_dict(value))
  except config.Error as error:
    raise config.Error(f"experiment {path}: {error}") from None
  except Exception as error:
    raise config.Error(
      f"experiment {path}: {type(error).__name__}: {error}; run it with python to debug"
    ) from error
  finally:
    sys.path.remove(str(path.parent.resolve()))
  if not isinstance(value, kind):
    raise config.Error(
      f"experiment {path}: config() returned {type(value).__name__}, this command needs"
      f" a {kind.__name__} (`pxy pretrain` takes Pretrain, `pxy train` takes Train)"
    )
  return value


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
class EvalOptions(OnTask):
  """avg@k, unbiased pass@k and maj@k with standard errors, lengths, thoughts."""

  samples: int = config.Eval().samples
  """Responses to each problem: the k of avg@k and the largest of pass@k."""
  problems: int = config.Eval().problems
  """The first of the split."""


@dataclasses.dataclass(frozen=True)
class AlignOptions(OnTask):
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
  context: Literal["start", "document", "shuffled", "mixture"] = config.Term().context
  """What log P(y) sees: the chat start token, the document separator, another prompt,
  or the mean over 4 prompts."""
  step_size: float = 1e-3
  """Step that is taken: first-order change of log P(y), in nats per token."""
  one_gradient: tyro.conf.FlagCreatePairsOff[bool] = False
  """Hold one gradient at a time, for models of which two do not fit; without numbers
  by block."""
  plot: pathlib.Path | None = None
  """Also draw the plots there (.png)."""


@dataclasses.dataclass(frozen=True)
class SampleOptions:
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
class ExportOptions:
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
class ScoreOptions:
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
class DataOptions:
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
class ReportOptions:
  """report.md and report.html; several runs: overlaid curves, seeds pooled."""

  runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
  """Run folders."""
  out: pathlib.Path | None = None
  """Folder of the report; default: the run's own, or runs/report for several."""


def _eval(argv):
  options = _parse(EvalOptions, argv)
  from pxy.evaluate import run

  run.command(options)


def _align(argv):
  options = _parse(AlignOptions, argv)
  from pxy.evaluate import align_run

  align_run.command(options)


def _sample(argv):
  options = _parse(SampleOptions, argv)
  from pxy.sampling import sample

  sample.command(options)


def _export(argv):
  options = _parse(ExportOptions, argv)
  from pxy.weights import export

  export.command(options)


def _report(argv):
  options = _parse(ReportOptions, argv)
  from pxy.report import page

  if not options.runs:
    raise config.Error("report: name at least one run folder")
  if len({run.resolve() for run in options.runs}) < len(options.runs):
    raise config.Error("report: a run is named twice; it would count as two seeds")
  out = options.out
  if out is None:
    one = len(options.runs) == 1
    out = options.runs[0] if one else pathlib.Path("runs/report")
  if out.exists() and not out.is_dir():
    raise config.Error(f"--out {out}: a file is in the way; name a folder")
  files.writable(out / "report.html", f"--out {out}")
  print(page.write(list(options.runs), out))


def _score(argv):
  options = _parse(ScoreOptions, argv)
  from pxy.rewards import score

  score.command(options)


def _data(argv):
  options = _parse(DataOptions, argv)
  from pxy.data import check

  check.command(options)


if __name__ == "__main__":
  main()
