"""Rows of prompts in the files that people have: JSONL and parquet, in four dialects.

  verl     data_source, prompt [messages], reward_model {ground_truth}, extra_info
  TRL      prompt (text or messages) and columns: answer, ground_truth, solution, ...
  plain    {"prompt" | "question": text, "answer" | "label": text or number}
  OpenAI   {"messages": [...]}; a last assistant message is the reference answer

Every row is checked. A row that cannot be used is an error of one line that says where
it is, what was expected, what was found, and how to write it.

Of an answer that is a list any counts: the first is the row's answer, and the others
are in the column `accepted`, with those that the row lists there itself.

Left out: images and other non-text content, tools.
"""

import dataclasses
import datetime
import decimal
import json
import math
import pathlib
from collections.abc import Iterator

import pyarrow
from pyarrow import parquet

from pxy import config
from pxy.rewards import answer as answer_lib
from pxy.rewards import sample

ROLES = ("system", "user", "assistant")
_PROMPTS = ("prompt", "question", "messages")
_ANSWERS = ("answer", "ground_truth", "label", "solution")
_EXAMPLE = '{"prompt": "What is 1 + 2?", "answer": "3"}'


@dataclasses.dataclass(frozen=True)
class Row:
  """One prompt.

  Attributes:
    messages: dicts of role and content, the last one the user's.
    answer: the reference answer; empty when the row has none and none is needed. For a
      function of the user's own it may be an object: its JSON.
    task: `data_source`, or the file's name without its ending.
    split: what the row says it belongs to (`extra_info.split` or `split`), or None.
    columns: the whole row as JSON values, for user-defined graders; and other right
      answers as `accepted`.
  """

  messages: list[dict[str, str]]
  answer: str
  task: str
  split: str | None
  columns: dict


def read(
  path: str | pathlib.Path, *, need_answer: bool = True
) -> Iterator[Row | config.Error]:
  """Each row of a .jsonl or .parquet file, or what is wrong with it.

  Raises config.Error when the file itself cannot be read.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise config.Error(f"{path}: no such file")
  readers = {".jsonl": jsonl, ".parquet": _parquet}
  if path.suffix not in readers:
    raise config.Error(f"{path}: expected a .jsonl or .parquet file")
  for where, values in readers[path.suffix](path):
    try:
      if isinstance(values, config.Error):
        raise values
      yield of_values(values, path.stem, need_answer)
    except config.Error as error:
      yield config.Error(f"{path}, {where}: {error}")
    except RecursionError:
      yield config.Error(f"{path}, {where}: nested too deep; drop the column")


def jsonl(path: pathlib.Path) -> Iterator[tuple[str, object]]:
  """(where, value) of each line; the value is a config.Error where it is not JSON."""
  with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      try:
        line.encode("utf-8")  # fails for bytes that were not UTF-8
        yield f"line {number}", loads(line)
      except UnicodeEncodeError:
        yield (
          f"line {number}",
          config.Error("not UTF-8 text; convert the file to UTF-8"),
        )
      except config.Error as error:
        yield f"line {number}", error
      except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        yield (
          f"line {number}",
          config.Error(
            f"not JSON ({reason}); write one object per line, such as {_EXAMPLE}"
          ),
        )


def loads(text: str):
  """The value of a JSON text, in which no object has a key twice.

  Raises:
    config.Error: one has: only the last value would count.
    ValueError, RecursionError: it is not JSON.
  """
  return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, object]]) -> dict:
  values = {}
  for key, value in pairs:
    if key in values:
      raise config.Error(f"key {key!r:.60}: twice in one object; keep one of them")
    values[key] = value
  return values


def _parquet(path: pathlib.Path):
  try:
    with parquet.ParquetFile(path) as file:
      number = 0
      narrow = [field for field in file.schema_arrow if _is_narrow(field.type)]
      for batch in file.iter_batches():
        for values in batch.to_pylist():
          for field in narrow:
            values[field.name] = _widened(values[field.name], field.type)
          yield f"row {number}", values
          number += 1
  except (pyarrow.ArrowException, OSError) as error:
    reason = " ".join(str(error).split())[:200]
    raise config.Error(f"{path}: not a readable parquet file ({reason})") from None


_FLOATS = {"halffloat": ".3g", "float": ".7g"}


def _is_narrow(kind) -> bool:
  """Whether a column has floats of 16 or 32 bits in it."""
  inside = [kind.field(i).type for i in range(kind.num_fields)]
  return str(kind) in _FLOATS or any(map(_is_narrow, inside))


def _widened(value, kind):
  """The same, where a narrow float is the decimal that it means: 0.1 stays 0.1."""
  if isinstance(value, float) and str(kind) in _FLOATS and math.isfinite(value):
    short = float(format(value, _FLOATS[str(kind)]))
    return value if value.is_integer() else short
  if isinstance(value, dict):
    types = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return {key: _widened(part, types[key]) for key, part in value.items()}
  if isinstance(value, list) and kind.num_fields == 1:
    return [_widened(part, kind.field(0).type) for part in value]
  return value


def parse(values, name: str) -> Row:
  """One row without need of an answer; config.Error begins with `name`."""
  try:
    return of_values(values, name, False)
  except config.Error as error:
    raise config.Error(f"{name}: {error}") from None
  except RecursionError:
    raise config.Error(f"{name}: nested too deep") from None


def of_values(values, task: str, need_answer: bool) -> Row:
  """A row of any dialect; config.Error that says which field cannot be used.

  task: its name, unless the row has a `data_source`.
  """
  if not isinstance(values, dict):
    raise wrong("row", "an object", values, f"write {_EXAMPLE}")
  values = {
    key: _json(key, value) for key, value in values.items() if value is not None
  }
  field = next((name for name in _PROMPTS if name in values), None)
  if field is None:
    found = ", ".join(values) or "nothing"
    raise config.Error(
      f"field 'prompt': expected it (or {', '.join(_PROMPTS[1:])}), found only"
      f" {found};"
      f" rename the column that holds the question, as in {_EXAMPLE}"
    )
  messages = _messages(field, values[field])
  reference = None
  if field == "messages" and messages[-1]["role"] == "assistant":
    reference = messages.pop()["content"]
  if not messages or messages[-1]["role"] != "user":
    role = messages[-1]["role"] if messages else "nothing before it"
    raise config.Error(
      f"field {field!r}: expected the last message to be the user's, found {role};"
      " end the prompt where the answer begins"
    )
  extra = values.get("extra_info")
  split = extra.get("split") if isinstance(extra, dict) else values.get("split")
  source = values.get("data_source", task)
  if not isinstance(source, str):
    raise wrong("data_source", "text", source, "name the task")
  answers = answers_of(values, reference, need_answer)
  return Row(
    messages=messages,
    answer=answers[0],
    task=source,
    split=split if isinstance(split, str) and split else None,
    columns=accepting(values, answers),
  )


def _messages(field: str, value) -> list[dict[str, str]]:
  if isinstance(value, str):
    if not value.strip():
      raise config.Error(f"field {field!r}: expected a question, found empty text")
    return [{"role": "user", "content": value}]
  if not isinstance(value, list) or not value:
    raise wrong(
      field,
      "text or a list of messages",
      value,
      'write text, or [{"role": "user", "content": "..."}]',
    )
  messages = []
  for i, message in enumerate(value):
    at = f"{field}[{i}]"
    if not isinstance(message, dict):
      raise wrong(at, "an object with role and content", message, "write messages")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
      raise config.Error(
        f"field '{at}.role': expected one of {', '.join(ROLES)}, found {role!r}"
      )
    if isinstance(content, list) and all(
      isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
      content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
      raise wrong(f"{at}.content", "text", content, "images are not supported")
    messages.append({"role": role, "content": content})
  return messages


def answer_of(values: dict, reference: str | None, need: bool) -> str:
  """The first of a row's answers."""
  return answers_of(values, reference, need)[0]


def accepting(values: dict, answers: list[str]) -> dict:
  """A row that has all its answers but the first as `accepted`."""
  own = values.get(sample.ACCEPTED)
  own = own if isinstance(own, list) else []
  more = {sample.ACCEPTED: [*answers[1:], *own]} if len(answers) > 1 else {}
  return values | more


def answers_of(
  values: dict, reference: str | None, need: bool, example: str = _EXAMPLE
) -> list[str]:
  """The reference answers of the first field that has any; one that is empty if none.

  Of a worked solution (`solution`, a reference message) only the last \\boxed counts,
  and of GSM8K's answers what follows the last `####`.
  """
  model = values.get("reward_model")
  if isinstance(model, dict) and model.get("ground_truth") is not None:
    name, value = "reward_model.ground_truth", model["ground_truth"]
  else:
    name = next((field for field in _ANSWERS if field in values), None)
    value = reference if name is None else values[name]
  if value is None:
    if not need:
      return [""]
    raise config.Error(
      "field 'answer': expected it (or reward_model.ground_truth, "
      f"{', '.join(_ANSWERS[1:])}), found none of them; add the right answer, as in"
      f" {example}, or name a grader that needs none"
    )
  if not need and _is_object(value):
    return [json.dumps(value, ensure_ascii=False)]
  if not isinstance(value, list) or not value:
    return [_answer(name, value, need)]
  each = enumerate(value)
  found = [_answer(f"{name}[{i}]" if value[1:] else name, x, need) for i, x in each]
  return list(dict.fromkeys(found))


def _is_object(value) -> bool:
  """Whether it is no answer as text or several, but what a function makes sense of."""
  if isinstance(value, list):
    return not value or not all(isinstance(part, (str, int, float)) for part in value)
  return isinstance(value, dict)


def _answer(name: str | None, value, need: bool) -> str:
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    raise wrong(
      name, "text or a number", value, "write the answer as text, or a list of several"
    )
  if isinstance(value, float) and not math.isfinite(value):
    raise wrong(name, "text or a number", value, "write the right answer, as text")
  text = number_text(value) if isinstance(value, float) else str(value)
  if name is None or name.startswith("solution"):
    boxed = answer_lib.boxed(text)
    text = text if boxed is None else boxed
  text = text.rpartition("####")[2].strip()
  if not text and need:
    raise config.Error(f"field {name or 'messages'!r}: expected an answer, found none")
  return text


def number_text(value: float) -> str:
  """The decimal that a float means: 15 digits of it, 0.3 of 0.1 + 0.2.

  7.0 is 7: pandas turns a column of integers with gaps into floats.
  """
  if value.is_integer() and abs(value) < 1e15:
    return str(int(value))
  return f"{value:.15g}"


def _json(name: str, value):
  """The value as JSON has it: graders run in another process."""
  if isinstance(value, dict):
    return {str(key): _json(name, part) for key, part in value.items()}
  if isinstance(value, list):
    return [_json(name, part) for part in value]
  if isinstance(value, (datetime.date, datetime.time, decimal.Decimal)):
    return str(value)
  if value is None or isinstance(value, (str, int, float)):
    return value
  raise wrong(name, "text, numbers, lists or objects", value, "drop the column")


def wrong(field: str, expected: str, found, cure: str) -> config.Error:
  """The error for a field of a row."""
  kind = type(found).__name__
  shown = repr(found)
  shown = shown if len(shown) <= 40 else shown[:37] + "..."
  return config.Error(
    f"field {field!r}: expected {expected}, found {kind} {shown}; {cure}"
  )
