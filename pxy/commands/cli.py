"""The command line: `pxy COMMAND --help` shows every option and its default.

Options come from the config dataclasses (tyro), so the defaults stand in config.py
alone. An experiment is a Python file whose `config()` returns a config (experiment.py
says how one is named); any field of it can be overridden: `pxy train dsrl --phases.0.lr
1e-5 --seed 1 --out runs/s1`.

What a command does stands in the module of its name, which is imported once its options
are read. Errors that the user can mend are one line on stderr and exit code 2.
"""

import contextlib
import dataclasses
import difflib
import importlib
import io
import os
import pathlib
import re
import sys

import tyro

from pxy import __version__, config
from pxy.bucket import objects
from pxy.commands import experiment, options, quiet, xla_cache

COMMANDS = {
  "pretrain": (options.Pretrain, "train a tokenizer and a base model from scratch"),
  "train": (options.Train, "reinforcement learning on P(y|x) and P(y)"),
  "eval": (
    options.Eval,
    "avg@k, pass@k, maj@k, lengths and thoughts of a model on a task",
  ),
  "probe": (
    options.Probe,
    "robust, calibrated, honest, unbiased? every measure, with interval and null",
  ),
  "bound": (
    options.Bound,
    "does RL leave what its base could already do? pass@k and what it gained and lost",
  ),
  "gate": (
    options.Gate,
    "may a model take its base's place? bounds on any measure; exits 1 if not",
  ),
  "align": (
    options.Align,
    "gradients of log P(y) and log P(y|x), and what a step on one does",
  ),
  "sample": (options.Sample, "responses of a model to a prompt"),
  "export": (
    options.Export,
    "a Hugging Face folder of a model, for transformers and vLLM",
  ),
  "compile": (
    options.Compile,
    "memory, FLOPs and collectives of a run on a TPU pod, without one",
  ),
  "score": (options.Score, "grades of responses in a file, by any grader"),
  "study": (
    options.Study,
    "methods x worlds x seeds, and what they say of each claim",
  ),
  "report": (options.Report, "report.md and report.html of one or several runs"),
  "doctor": (
    options.Doctor,
    "would a run work on this machine? a cure for what would not; exits 1 if not",
  ),
  "data": (
    options.Data,
    "`pxy data check TASK`: validate every row of a file or other source",
  ),
}


def main(argv: list[str] | None = None) -> None:
  """Entry point of `pxy`; exits 0, or 2 with one line."""
  argv = sys.argv[1:] if argv is None else argv
  try:
    if not argv or argv[0] in ("-h", "--help", "help"):
      print("usage: pxy COMMAND [OPTIONS]\n")
      print("\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()))
      print("\n`pxy COMMAND --help` explains a command; START at `pxy train dsrl`.")
    elif argv[0] == "--version":
      print(__version__)
    else:
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


def _run(name: str, argv: list[str]) -> None:
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"is it {near[0]!r}? " if near else ""
    raise config.Error(
      f"unknown command {name!r}; {hint}there are {', '.join(COMMANDS)}"
    )
  if not {"-h", "--help"} & set(argv):
    quiet.start(name)  # both before an experiment may import JAX
    if name != "doctor":  # which says itself where they are kept
      xla_cache.keep()
  read = chosen(name, argv)
  from pxy.commands import malloc  # it loads the C library: not for --help

  malloc.reuse()
  importlib.import_module(f"pxy.commands.{name}").command(read)


def chosen(name: str, argv: list[str]):
  """The options of a command, read from what stands behind its name and checked.

  Raises config.Error, one line, for what cannot be meant.
  """
  kind, _ = COMMANDS[name]
  default = word = None
  if of := options.CONFIGS.get(kind):
    word = _named(argv)
    cfg = experiment.load(word, of) if word is not None else of()
    default = kind(experiment=tyro.MISSING, cfg=cfg)
  found = _parse(kind, argv, name, default)
  if word is not None and found.experiment != word:
    raise config.Error(
      f"experiment {found.experiment}: put it before the options, pxy {name}"
      f" {found.experiment} ..."
    )
  for field in dataclasses.fields(found):
    value = getattr(found, field.name)
    if isinstance(value, pathlib.Path) and objects.is_url(value):
      raise config.Error(
        f"--{field.name} {value}: a folder or file of this machine; in a bucket may be"
        " --out of train, pretrain, export and study, the runs of report, a MODEL,"
        " --save, and the files of a task"
      )
  return found


def _named(argv: list[str]) -> str | None:
  """The experiment in argv; the options are over its values. None where help is asked
  for and no experiment."""
  if argv and not argv[0].startswith("-"):
    return argv[0]
  later = next((word for word in argv if word.endswith(".py")), None)
  if later is None and not {"-h", "--help"} & set(argv):
    raise config.Error(
      f"name an experiment first: one of pxy's ({', '.join(experiment.own())}), a base"
      f" with a method ({experiment.bases()[0]}:grpo), or a file (my.py, my.py:grpo)"
    )
  return later


def _parse(kind, argv, name, default):
  """tyro, with its boxed errors folded to one line (the nearest option is in it)."""
  stderr = io.StringIO()
  try:
    with contextlib.redirect_stderr(stderr):
      return tyro.cli(
        kind, args=argv, default=default, prog=f"pxy {name}",
        config=(tyro.conf.HelptextFromCommentsOff,),
      )  # fmt: skip
  except SystemExit as stop:
    if stop.code == 0:  # --help
      raise
    text = re.sub(r"([╭╮╰╯│─\s]|-{3,})+", " ", stderr.getvalue()).strip()
    text = re.sub(r"^[A-Z][a-z]+ (options|error|argument|choice) (?=\S)", "", text)
    text = text.replace("Error parsing cfg.", "")
    text = re.sub(r"(Argument helptext:|For full helptext,).*$", "", text).strip()
    raise config.Error(f"{text[:300]} (see pxy {name} --help)") from None


if __name__ == "__main__":
  main()
