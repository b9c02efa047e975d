"""Responses in files, as the ids and the grades that a run takes (run/stored.py).

  --rollouts DIR    what `pxy eval --save DIR` keeps (evaluate/store.py), or one of them
  --rollouts FILE   rows of prompt, response and reward (data/records.py has the kinds):
                    {"prompt": "What is 1 + 2?", "response": "3", "reward": 1}

Ids are taken as they are. A response that is text is encoded, and gets the token that
ends a message, unless `stop` is "length"; a tool's tokens are told by `mask`. A row of
another tokenizer is refused: its ids do not give its text. Left out: images, and tools'
calls in prompts.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from pxy import config, fields
from pxy.bucket import mirror
from pxy.data import prompts as prompts_lib
from pxy.data import records, rows
from pxy.evaluate import store
from pxy.rewards import answer as answer_lib
from pxy.rewards import sample as sample_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib
from pxy.text import template

VERSION = -1
"""Of the policy of a response that none of the run's has drawn."""
_EXAMPLE = '{"prompt": "What is 1 + 2?", "response": "3", "reward": 1}'
_OWN = (
  "response", "text", "ids", "logps", "mask", "advantages", "prompt_ids", "problem",
  "reward", "score", "stop",
)  # fmt: skip
"""Columns of a row that are no grader's."""
_UNGRADED = sample_lib.ungradable("stored without a grade")
_END = 24
"""Tokens that hold an opening <think>."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A response of a file: `key` names its problem, `at` its place."""

  at: str
  key: object
  answer: collect.Answer


def files(word: str) -> list[pathlib.Path]:
  """The files that hold what `--rollouts` names."""
  path = store.held(word)
  if path is None:
    return records.paths(word)
  if path.is_dir():
    ends = sorted(path.glob("*.problems.jsonl"))
    stems = [str(one).removesuffix(".problems.jsonl") for one in ends]
  else:
    stems = [str(path.with_suffix(""))]
  kinds = (".json", ".problems.jsonl", ".jsonl")
  return [pathlib.Path(stem + kind) for stem in stems for kind in kinds]


def read(word: str, data: config.Data, tokenizer, vocab: int) -> list[Row]:
  """The rows of what `--rollouts` names; stored.load has the arguments, and what is
  raised: config.Error for the first row that cannot be used."""
  if store.held(word) is None:
    out = list(_of_rows(word, data, tokenizer, vocab))
  else:
    found = store.read(word)
    out = [row for one in found for row in _of_store(one, data, tokenizer, vocab)]
  if not out:
    raise config.Error(f"{word}: no rows; write them, such as {_EXAMPLE}")
  return out


# pxy's own.


def _of_store(
  one: store.Stored, data: config.Data, tokenizer, vocab: int
) -> Iterator[Row]:
  """The rows of a store. Its prompts are those of the task that it names, as they were
  when the responses were drawn: the digests of their ids say so."""
  prompts = _asked(one, data, tokenizer)
  for p, (prompt, problem) in enumerate(zip(prompts, one.problems, strict=True)):
    if store.digest(prompt.ids.tolist()) != problem["digest"]:
      raise config.Error(
        f"{mirror.name(one.path)}: the prompt of problem {p} is of other ids than these"
        " samples were drawn with: the tokenizer, the chat template or the task's file"
        " is another"
      )
    totals = one.logp["prompt"][p].tolist()
    for r, ids in enumerate(one.ids[p]):
      at = f"{mirror.name(one.path)}, problem {p}, response {r}"
      score = one.score_PR[p, r]
      stop = "length" if one.truncated_PR[p, r] else "stop"
      yield Row(
        at,
        (one.path.name, problem["problem"]),
        collect.Answer(
          prompt,
          dataclasses.replace(
            _sample(at, ids, one.texts[p][r], stop, tokenizer, vocab), total=totals[r]
          ),
          one.texts[p][r],
          sample_lib.scored(score) if math.isfinite(score) else _UNGRADED,
        ),
      )


def _asked(one: store.Stored, data, tokenizer) -> list[prompts_lib.Prompt]:
  """The prompts that a store's responses were drawn with."""
  of = one.about["of"]
  try:
    several = isinstance(of["grader"], list)
    asked = dataclasses.replace(
      data,
      task=of["task"],
      columns=of.get("columns", ""),
      grader=config.Data().grader if several else of["grader"],
      rewards=tuple(of["grader"]) if several else (),
      template=of["template"],
      system=of["system"],
      template_arguments=tuple(of["template_arguments"]),
      max_prompt_tokens=of["max_prompt_tokens"],
    )
    split = of["split"]
  except (LookupError, TypeError) as error:
    raise config.Error(f"{one.path}: not readable ({fields.line(error)})") from None
  prompts = prompts_lib.load(asked, tokenizer, split).first(len(one.problems))
  if len(prompts) < len(one.problems):
    raise config.Error(
      f"{one.path}: of {len(one.problems)} problems, and {asked.task} now has"
      f" {len(prompts)}; bring its file back"
    )
  return prompts


# Rows of others.


def _of_rows(word: str, data: config.Data, tokenizer, vocab: int) -> Iterator[Row]:
  task, known = records.stem(word), {}
  tokenizer, kind = template.prepared(tokenizer, data.template)

  def rendered(messages) -> np.ndarray:
    key = json.dumps(messages)
    if key not in known:
      how = kind, data.system, data.template_arguments
      ids = template.render(tokenizer, messages, *how)
      known[key] = np.asarray(ids, np.int32)
    return known[key]

  for at, values in records.each(word, ("prompt", "response", "answer", "problem")):
    try:
      if isinstance(values, config.Error):
        raise values
      if not isinstance(values, dict):
        raise rows.wrong("row", "an object", values, f"write {_EXAMPLE}")
      values = {k: v for k, v in values.items() if v is not None}
      prompt = _prompt(values, task, tokenizer, vocab, rendered)
      sample, text = _response(values, tokenizer, vocab)
      answer = collect.Answer(prompt, sample, text, _outcome(values))
      key = values.get("problem", prompt.ids.tobytes())
      if not isinstance(key, (str, int, bytes)):
        raise rows.wrong("problem", "a name or a number", key, "or leave it out")
    except RecursionError:
      raise config.Error(f"{at}: nested too deep; drop the column") from None
    except config.Error as error:
      raise config.Error(f"{at}: {error}") from None
    yield Row(at, key, answer)


def _prompt(values, task, tokenizer, vocab, rendered) -> prompts_lib.Prompt:
  columns = {k: v for k, v in values.items() if k not in _OWN}
  if "prompt_ids" in values:
    ids = _ids("prompt_ids", values["prompt_ids"], vocab)
    text = values.get("prompt")
    text = text if isinstance(text, str) else tokenizer.decode(ids.tolist())
    text = text if text.strip() else str(ids.tolist())
    row = rows.of_values(columns | {"prompt": text}, task, False, None)
  else:
    row = rows.of_values(columns, task, False, None)
    ids, text = rendered(row.messages), prompts_lib.text_of(row)
  return prompts_lib.Prompt(
    ids=ids,
    text=text,
    answer=row.answer,
    task=row.task,
    uid=0,
    columns=row.columns,
    in_think=answer_lib.opens(template.spell(tokenizer, ids[-_END:].tolist())),
  )


def _response(values, tokenizer, vocab) -> tuple[engine_lib.Sample, str]:
  """The response of a row, as ids or as text."""
  text = values.get("response", values.get("text"))
  if text is not None and not isinstance(text, str):
    raise rows.wrong("response", "text", text, f"write {_EXAMPLE}")
  stop = values.get("stop", "stop")
  if stop not in ("stop", "length"):
    raise rows.wrong("stop", "stop or length", stop, "say what ended the response")
  if "ids" not in values:
    for name in ("logps", "mask", "advantages"):
      if name in values:
        raise config.Error(f"field {name!r}: of tokens, so the row needs `ids`, too")
    if not text:
      raise rows.wrong("response", "text, or `ids`", text, f"write {_EXAMPLE}")
    ids = [*tokenizer.encode(text), *([tokenizer.end_id] if stop == "stop" else [])]
    values, given = values | {"ids": ids}, None
  else:
    given = text
  ids = _ids("ids", values["ids"], vocab)
  sample = _sample("", ids, given, stop, tokenizer, vocab)
  size = len(ids)
  logp = _numbers(values, "logps", size, (float, int), unknown=True)
  mask = _numbers(values, "mask", size, (bool, int))
  adv = _numbers(values, "advantages", size, (float, int))
  if mask is not None and not np.isin(mask, (0, 1)).all():
    raise rows.wrong("mask", "0 and 1", values["mask"], "1: trained on")
  if logp is not None and (logp > 1e-3).any():
    raise rows.wrong("logps", "log-probs, none above 0", values["logps"], "in nats")
  if logp is not None:
    sample = dataclasses.replace(sample, logp=logp.astype(np.float32))
  if mask is not None:
    sample = dataclasses.replace(sample, mask=mask.astype(bool))
  if adv is not None:
    sample = dataclasses.replace(sample, adv=adv.astype(np.float32))
  return sample, tokenizer.decode(ids.tolist()) if text is None else text


def _sample(at: str, ids, text, stop: str, tokenizer, vocab: int) -> engine_lib.Sample:
  """A response of these ids; text: what they must stand for; None: not known."""
  at = f"{at}: " if at else ""
  if len(ids) and not 0 <= min(ids) <= max(ids) < vocab:
    raise config.Error(f"{at}an id outside the model's vocabulary of {vocab}")
  if text is not None and tokenizer.decode(ids.tolist()) != text:
    raise config.Error(
      f"{at}the ids stand for {tokenizer.decode(ids.tolist())!r:.60} with this model's"
      f" tokenizer, and the row's text is {text!r:.60}: ids of another tokenizer; leave"
      " them out, and the text is encoded anew"
    )
  if stop == "stop" and ids[-1] not in tokenizer.stop_ids:
    raise config.Error(
      f"{at}the last id is {ids[-1]}, no token that ends a response"
      f" ({template.stops(tokenizer)}); add it, or say stop: length"
    )
  unknown = np.full(len(ids), np.nan, np.float32)
  return engine_lib.Sample(ids, unknown, stop, VERSION)


def _ids(name: str, value, vocab: int) -> np.ndarray:
  if not isinstance(value, list) or not value or set(map(type, value)) != {int}:
    raise rows.wrong(name, "a list of token ids, at least one", value, "write integers")
  if not 0 <= min(value) <= max(value) < vocab:
    odd = next(x for x in value if not 0 <= x < vocab)
    raise config.Error(
      f"field {name!r}: {odd} is no id of the model's vocabulary of {vocab}; the row is"
      " of another tokenizer"
    )
  return np.array(value, np.int32)


def _numbers(values, name: str, size: int, kinds, *, unknown: bool = False):
  """A number for each token, or None where the row has no such field; nan is one that
  is null, where some may be `unknown`."""
  if name not in values:
    return None
  value = values[name]
  if not isinstance(value, list) or len(value) != size:
    raise rows.wrong(name, f"a list of {size}, one for each id", value, "or drop it")
  value = [math.nan if unknown and x is None else x for x in value]
  if not all(isinstance(x, kinds) and _held(x, unknown) for x in value):
    raise rows.wrong(name, "finite numbers", value, "or drop it")
  return np.array(value, np.float64)


def _held(x, unknown: bool = False) -> bool:
  """Whether a float32 holds the number; nan: where some may be `unknown`."""
  return (unknown and x != x) or abs(x) <= 3.4e38


def _outcome(values) -> sample_lib.Outcome | None:
  """The reward of a row; None where it is to be graded."""
  name = next((name for name in ("reward", "score") if name in values), None)
  if name is None:
    return None
  value = values[name]
  if not isinstance(value, (bool, int, float)) or not _held(value):
    raise rows.wrong(name, "a finite number", value, "or drop it, to have it graded")
  return sample_lib.scored(float(value))
