"""`pxy export`: MODEL as a Hugging Face folder that transformers and vLLM serve.

    config.json  generation_config.json  *.safetensors  tokenizer files
    chat_template.jinja  README.md (the model card: origin, scores, gates, config)

The folder is made beside its place, read again by pxy, compared number by number with
what was to be written, and only then renamed: what stands at DIR is whole and right.
The chat template is the one that the model was trained with, also where the tokenizer
brought none. A base model without one goes out without one. The tokenizer becomes a
tokenizer.json (text/hf_files.py); a sentencepiece model also stays as it was.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from pxy import __version__, config, files
from pxy.text import hf_files, template
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import hf, load

_NAMED = ("builtin:", "hf://")
_FOLDERS = re.compile(r"(?<!\S)(~|\.{1,2})?/([^/\s]+/)+(?=[^/\s])")
_PROBE = (
  "What is 1 + 2?\n<|im_end|> \u00e9\u4f60",
  "  two  spaces\t\n\n\n 00123, don't I'LL \u2581 \u00bd \U0001f600\u200d e\u0301 \r\n",
  "def f(x):\n    return x**2  # \\boxed{1}\n",
)


def export(
  model: str, out: pathlib.Path, *, dtype: str = "float32", step: int | None = None
) -> None:
  """Writes MODEL to the folder `out`, which must not be there yet.

  Args:
    dtype: of the tensors in the files.
    step: checkpoint of a run folder; None: the newest.

  Raises:
    config.Error: `out` is there or cannot be written, MODEL cannot be read, or what was
      written does not read back as it should.
  """
  out = pathlib.Path(out)
  if out.exists():
    raise config.Error(f"--out {out}: it is there already; name a new folder")
  files.writable(out / "config.json", f"--out {out}")
  policy = load.load(model, step)
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
  except OSError as error:
    raise config.Error(f"--out {out}: {error.strerror or error}") from error
  try:
    hf.save(
      partial, policy.arch, policy.params, dtype=dtype, tokenizer=policy.tokenizer
    )
    notes = _tokenizer(partial, policy.tokenizer)
    files.write_text(partial / "README.md", card(model, policy, dtype, step, notes))
    _compare(partial, policy, dtype)
    os.chmod(partial, 0o755)
    os.rename(partial, out)
  except OSError as error:
    raise config.Error(f"--out {out}: {error.strerror or error}") from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _tokenizer(folder: pathlib.Path, tokenizer) -> list[str]:
  """Writes what others read the tokenizer from; returns what the card is to say."""
  notes = []
  try:
    files.write_text(folder / "tokenizer.json", hf_files.source(tokenizer))
    files.write_json(folder / "tokenizer_config.json", hf_files.settings(tokenizer))
  except config.Error as error:
    notes.append(
      f"Software that converts `tokenizer.model` may split otherwise: {error}."
    )
  try:
    source = template.source(tokenizer)
  except config.Error as error:
    notes.append(f"No chat template is written: {error}.")
    return notes
  if source is None:
    notes.append("A base model: it has no chat template.")
  else:
    files.write_text(folder / "chat_template.jinja", source)
  return notes


def _compare(folder: pathlib.Path, policy: load.Policy, dtype: str) -> None:
  """Reads the folder as a stranger would, and refuses what differs.

  One parameter at a time: a second model is never in memory.
  """

  def check(path, again):
    given = np.asarray(functools.reduce(dict.get, path, policy.params), np.float32)
    want = given.astype(jnp.dtype(dtype)).astype(np.float32)
    if not np.array_equal(want, again, equal_nan=True):
      name = ".".join(path)
      raise config.Error(f"{folder}: {name} reads back as other numbers")

  if hf.load(folder, check)[0] != policy.arch:
    raise config.Error(f"{folder}: config.json reads back as another architecture")
  tokenizer = tokenizer_lib.load(folder)
  if _behaviour(tokenizer) != _behaviour(policy.tokenizer):
    raise config.Error(f"{folder}: the tokenizer reads back as another one")


def _behaviour(tokenizer) -> list:
  """What two tokenizers that are the same agree in."""
  texts = [tokenizer.encode(text) for text in _PROBE]
  texts += [tokenizer.decode(ids) for ids in texts]
  known = [tokenizer.controls, tokenizer.stop_ids, tokenizer.pad_id, texts]
  chat = [{"role": "user", "content": _PROBE[0]}]
  try:
    if template.source(tokenizer) is not None:
      known.append(template.render(tokenizer, chat))
  except config.Error as error:  # of a template that wants other variables, say
    known.append(str(error))
  return known


def card(
  model: str,
  policy: load.Policy,
  dtype: str,
  step: int | None,
  notes: Sequence[str] = (),
) -> str:
  """The model card: what it is, and of a run its config and scores."""
  arch = policy.arch
  lines = [
    "---",
    "library_name: transformers",
    "pipeline_tag: text-generation",
    "tags: [pxy, reinforcement-learning]",
    "---",
    f"# {_name(model)}",
    "",
    f"Exported by pxy {__version__} from `{_name(model)}`"
    + ("" if step is None else f", checkpoint {step}")
    + f": {arch.layers} layers of width {arch.d_model}, vocabulary {arch.vocab_size:,},"
    f" context {arch.context:,}, {dtype}.",
  ]
  for note in notes:
    lines += ["", note]
  if not model.startswith(_NAMED) and load.is_run(load.place(model)):
    lines += _of_run(load.place(model), step)
  return "\n".join(lines) + "\n"


def _of_run(run: pathlib.Path, step: int | None) -> list[str]:
  """What the card says of a run up to a step: its base, phases, scores and config."""
  from pxy.train import checkpoint  # Orbax takes a second to import

  held, lines = {}, []
  for name in ("config", "summary"):
    with contextlib.suppress(OSError, ValueError):
      held[name] = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
  settings, summary = held.get("config"), held.get("summary")
  step = max(checkpoint.steps(run / "checkpoints")) if step is None else step
  if isinstance(settings, dict) and "phases" in settings:
    ends = itertools.accumulate(phase["steps"] or 0 for phase in settings["phases"])
    begun = [0, *ends][: len(settings["phases"])]
    phases = ", then ".join(
      str(phase["name"])
      for start, phase in zip(begun, settings["phases"], strict=True)
      if start < max(step, 1)
    )
    of = f"`{_name(settings['model'])}`"
    lines += ["", f"Trained from {of} up to step {step:,}, with {phases}."]
  ended = isinstance(summary, dict) and summary.get("steps") == step
  if ended and isinstance(summary.get("after"), dict):
    lines += ["", "| score | before | after |", "|---|---:|---:|"]
    for name, after in summary["after"].items():
      before = (summary.get("before") or {}).get(name)
      lines.append(f"| {name} | {_cell(before)} | {_cell(after)} |")
  lines += _gates(run / "gate" / f"{step:08d}.json")
  if isinstance(settings, dict):
    text = json.dumps(_without_folders(settings), indent=2, ensure_ascii=False)
    lines += ["", "<details><summary>Config</summary>", "", "```json", text, "```"]
    lines += ["", "</details>"]
  return lines


def _gates(path: pathlib.Path) -> list[str]:
  """What `pxy gate` decided on these weights; nothing where it was not asked.

  Raises config.Error for a file that is damaged: a gate must not go missing.
  """
  if not path.is_file():
    return []
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    passed = sum(one["passed"] for one in found["gates"])
    lines = ["", f"## Gates: {passed} of {len(found['gates'])} passed", ""]
    if "against" in found:
      lines += [f"Differences are to `{_name(found['against'])}`, paired by problem."]
    lines += [
      "A gate is passed where the whole 95 % interval lies within its bound.",
      "",
    ]
    lines += ["| gate | task | of | number | 95 % | n | wanted | verdict | passed |"]
    lines += ["|---|---|---|---:|---:|---:|---|---|---|"]
    for one in found["gates"]:
      task = _without_folders(one["task"]).replace("|", "/")
      ends = (one[key] for key in ("value", "low", "high"))
      value, low, high = ("–" if x is None else f"{x:.4f}" for x in ends)
      lines.append(
        f"| {one['measure']} | {task} | {one['of']} | {value} | {low} to {high}"
        f" | {one['n'] or '–'} | {one['wanted']} | {one['verdict']}"
        f" | {'yes' if one['passed'] else 'no'} |"
      )
    if found["not_asked"]:
      lines += ["", f"Not asked of it: {', '.join(found['not_asked'])}."]
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise config.Error(
      f"{path}: not what pxy gate wrote ({type(error).__name__}: {error}); run that"
      " again, or remove the file"
    ) from error
  return lines


def _name(model) -> str:
  """Where a model comes from, without the folders of this machine."""
  text = str(model)
  return text if text.startswith(_NAMED) else pathlib.Path(text).resolve().name


def _without_folders(value):
  """A JSON value in whose texts files have their names alone."""
  if isinstance(value, dict):
    return {key: _without_folders(one) for key, one in value.items()}
  if isinstance(value, list):
    return [_without_folders(one) for one in value]
  return _FOLDERS.sub("", value) if isinstance(value, str) else value


def _cell(score) -> str:
  if not score or score.get("value") is None:
    return "–"
  error = "" if score.get("se") is None else f" ± {score['se']:.3g}"
  return f"{score['value']:.4g}{error}"
