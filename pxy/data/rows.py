"""Rows of prompts in the files that people have (records.py), in six dialects.

  verl      data_source, prompt [messages], reward_model {ground_truth}, extra_info
  TRL       prompt (text or messages) and columns: answer, ground_truth, solution, ...
  plain     {"question" | "problem": text, "answer" | "label": text or number}
  OpenAI    {"messages": [...]}; a last assistant message is the reference answer
  ShareGPT  {"conversations": [{"from": "human", "value": ...}, ...]}; the same
  Alpaca    {"instruction", "input", "output"}

The first of the known names that a row has is taken, and told (`fields`); `columns`
says which to take instead: question=problem,answer=solution.

Every row is checked. A row that cannot be used is an error of one line that says where
it is, what was expected, what was found, and how to write it. Rows that contradict each
other (`Seen`) are one too: a question with two answers, a split that only some name.

Of an answer that is a list any counts: the first is the row's answer, and the others
are in the column `accepted`, with those that the row lists there itself.

Left out: images and other non-text content, tools.
"""

import dataclasses
import datetime
import decimal
import hashlib
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping

from pxy import config
from pxy.data import records
from pxy.rewards import answer as answer_lib
from pxy.rewards import equal, sample

ROLES = ("system", "user", "assistant")
_FEW = ("prompt", "question", "messages")
_PROMPTS = (*_FEW, "problem", "instruction", "conversations")
_CHATS = ("messages", "conversations")
_ANSWERS = ("answer", "ground_truth", "label", "solution")
_MORE = ("final_answer", "expected_answer", "gold", "target", "output")
"""Names of answers too, but in a file of responses they may be the model's."""
_BARE = ("answer", "ground_truth", "label", "reward_model.ground_truth")
"""Columns that hold the answer alone; of all others only the last box counts, if there
is one."""
_FIELDS = ("question", "answer", "split", "data_source")
"""What `columns` may say the column of."""
_OBJECTS = ("reward_model", "extra_info")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_SAYERS = {
  "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
  "model": "assistant", "chatgpt": "assistant", "bot": "assistant", "system": "system",
}  # fmt: skip
_LISTED = re.compile(r"\s*\[\s*\{\s*([\"'])(role|content|from|value)\1\s*:")
_EXAMPLE = records.EXAMPLE


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
    fields: the columns that question and answer were taken from, as a person reads it.
    place: file and line or row; of files only.
  """

  messages: list[dict[str, str]]
  answer: str
  task: str
  split: str | None
  columns: dict
  fields: str = ""
  place: str = ""


def read(
  path: str | pathlib.Path, *, need_answer: bool = True, columns: str = ""
) -> Iterator[Row | config.Error]:
  """Each row of the files that `path` names (records.py), or what is wrong with it.

  columns: see `mapping`.

  Raises config.Error when a file itself cannot be read.
  """
  chosen = mapping(columns)
  texts = {*_PROMPTS, *_ANSWERS, *_MORE, *_OBJECTS, "split", "data_source", "input"}
  task = records.stem(str(path))
  for where, values in records.each(str(path), texts | set(chosen.values())):
    try:
      if isinstance(values, config.Error):
        raise values
      row = of_values(values, task, need_answer, chosen)
      yield dataclasses.replace(row, place=where)
    except config.Error as error:
      yield config.Error(f"{where}: {error}")
    except RecursionError:
      yield config.Error(f"{where}: nested too deep; drop the column")


def mapping(columns: str) -> dict[str, str]:
  """Columns by field: `mapping("question=problem")` is {"question": "problem"}."""
  found = {}
  for part in columns.split(",") if columns.strip() else []:
    field, equals, column = (word.strip() for word in part.partition("="))
    field = "question" if field in ("prompt", "messages") else field
    if not equals or not column or field not in _FIELDS or field in found:
      raise config.Error(
        f"data.columns {part.strip()!r}: expected FIELD=COLUMN, such as"
        " question=problem,answer=solution, each field once, of"
        f" {', '.join(_FIELDS)}"
      )
    found[field] = column
  return found


class Seen:
  """The rows of a source so far, and what later ones must not contradict.

  answers: whether each row needs one.
  """

  def __init__(self, answers: bool):
    self._answers = answers
    self._first: dict[bytes, tuple[str, list[str]]] = {}
    self._named: Row | None = None

  def check(self, row: Row) -> None:
    """Raises config.Error for a row that contradicts an earlier one."""
    first = self._named = self._named or row
    if (first.split is None) != (row.split is None):
      what, other = (repr(x.split) if x.split else "no split" for x in (row, first))
      raise config.Error(
        f"{row.place}: field 'split': {what}, but {other} in {first.place}; name one in"
        " every row, in `split` or `extra_info.split`, or in none"
      )
    if not self._answers or not row.answer:
      return
    asked = json.dumps(row.messages).encode()
    key = hashlib.blake2b(asked, digest_size=16).digest()
    right = sample.right(row.answer, row.columns)
    place, before = self._first.setdefault(key, (row.place, right))
    pairs = itertools.product(right, before)
    if not any(a == b or equal.decide(a, b) is True for a, b in pairs):
      raise config.Error(
        f"{row.place}: field 'answer': {right[0][:40]!r}, but {before[0][:40]!r} for"
        f" the same question in {place}; keep the right one of the rows, or write both"
        " answers alike"
      )


def parse(values, name: str) -> Row:
  """One row without need of an answer; config.Error begins with `name`."""
  try:
    return of_values(values, name, False, {})
  except config.Error as error:
    raise config.Error(f"{name}: {error}") from None
  except RecursionError:
    raise config.Error(f"{name}: nested too deep") from None


def of_values(
  values, task: str, need_answer: bool, columns: Mapping[str, str] | None = None
) -> Row:
  """A row of any dialect; config.Error that says which field cannot be used.

  Args:
    task: its name, unless the row has a `data_source`.
    columns: by field, instead of the known names; see `mapping`. None: of features
      that have options of their own, and no name but a few is known.
  """
  if not isinstance(values, dict):
    raise wrong("row", "an object", values, f"write {_EXAMPLE}")
  for name in _MEDIA:
    if _holds(values.get(name)):
      cure = "leave the row out, or drop the column where no question needs it"
      raise wrong(name, "none, for questions are text", values[name], cure)
  values = {
    key: _json(key, value) for key, value in values.items() if value is not None
  }
  values |= {k: _object(k, values[k]) for k in _OBJECTS if k in values}
  field, messages = _asked(values, columns)
  reference = None
  named = columns or {}
  chat = field in _CHATS or (field != "prompt" and "question" in named)
  if chat and messages[-1]["role"] == "assistant":
    reference = messages.pop()["content"]
  if not messages or messages[-1]["role"] != "user":
    role = messages[-1]["role"] if messages else "nothing before it"
    raise config.Error(
      f"field {field!r}: expected the last message to be the user's, found {role};"
      " end the prompt where the answer begins"
    )
  if not messages[-1]["content"].strip():
    raise config.Error(f"field {field!r}: expected a question, found empty text")
  source = values.get("data_source", task)
  if "data_source" in named:
    source = _of_column("data_source", values, named)
  if not isinstance(source, str):
    raise wrong("data_source", "text", source, "name the task")
  name, value = _reference(values, reference, need_answer, columns)
  answers = _answers(name, value, need_answer, _EXAMPLE)
  told = [f"question from {field!r}"]
  if answers[0]:
    told.append(f"answer from {name or field!r}")
  return Row(
    messages=messages,
    answer=answers[0],
    task=source,
    split=_split(values, named),
    columns=accepting(values, answers),
    fields=", ".join(told),
  )


def _asked(values: dict, columns: Mapping[str, str] | None) -> tuple[str, list[dict]]:
  """The column that holds the question, and its messages."""
  if columns and "question" in columns:
    field = columns["question"]
    value = _of_column("question", values, columns)
  else:
    known = _FEW if columns is None else _PROMPTS
    field = next((name for name in known if name in values), None)
    if field is None:
      found = ", ".join(values) or "nothing"
      name = "" if columns is None else " say --data.columns question=COLUMN, or"
      raise config.Error(
        f"field 'prompt': expected it (or {', '.join(known[1:])}), found only"
        f" {found:.200};{name} rename the column that holds the question, as in"
        f" {_EXAMPLE}"
      )
    value = values[field]
  messages = _messages(field, value)
  if field == "instruction" and values.get("input"):
    more = values["input"]
    if not isinstance(more, str):
      raise wrong("input", "text", more, "write what the instruction is about as text")
    messages[-1]["content"] += f"\n\n{more}" if more.strip() else ""
  if field in ("instruction", "conversations"):
    if values.get("history"):
      cure = "write the whole chat as messages"
      raise wrong("history", "none", values["history"], cure)
    system = values.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
      messages.insert(0, {"role": "system", "content": system})
  return field, messages


def _of_column(field: str, values: dict, columns: Mapping[str, str]):
  """The value of the column that `columns` names, A.B being B in A."""
  column = columns[field]
  if column in values:
    return values[column]
  value = values
  for part in column.split("."):
    value = value.get(part) if isinstance(value, dict) else None
  if value is None:
    raise config.Error(
      f"field {column!r}: expected it, for data.columns says {field}={column}; there"
      f" are {', '.join(values):.200}"
    )
  return value


def _split(values: dict, columns: Mapping[str, str]) -> str | None:
  """What the row says it belongs to, in two places; each may be without."""
  extra = values.get("extra_info")
  inside = extra.get("split") if isinstance(extra, dict) else None
  own, name = values.get("split"), columns.get("split", "split")
  if "split" in columns:
    own = _of_column("split", values, columns)
    if not isinstance(own, str):
      raise wrong(name, "the name of a split", own, "write train, test, ...")
  inside, own = (x if isinstance(x, str) and x else None for x in (inside, own))
  if inside and own and inside != own:
    raise config.Error(
      f"field {name!r}: {own!r}, but extra_info.split is {inside!r}; write the same in"
      " both, or drop one"
    )
  return inside or own


def _holds(value) -> bool:
  """Whether there is anything in a value."""
  if isinstance(value, dict):
    return any(map(_holds, value.values()))
  if isinstance(value, (list, tuple)):
    return any(map(_holds, value))
  return bool(value)


def _object(name: str, value):
  """An object that may stand there as JSON text; other values as they are."""
  if not isinstance(value, str) or not value.lstrip().startswith("{"):
    return value
  found = _parsed(name, value)
  if not isinstance(found, dict):
    cure = "write it with json.dumps, not str"
    raise wrong(name, "an object, or one as JSON", value, cure)
  return found


def _parsed(field: str, text: str):
  """The value of a field's JSON; None where it is none."""
  try:
    return records.loads(text)
  except config.Error as error:
    raise config.Error(f"field {field!r}: {error}") from None
  except ValueError:
    return None


def _listed(field: str, text: str):
  """Messages that stand there as JSON text; None where it is a question as it is."""
  begins = _LISTED.match(text)
  if not begins and not (field in _CHATS and text.lstrip()[:1] in ("[", "{")):
    return None
  found = _parsed(field, text)
  keys = {"role", "content"}, {"from", "value"}
  if isinstance(found, list) and all(
    isinstance(part, dict) and any(own <= part.keys() for own in keys) for part in found
  ):
    return found
  if field in _CHATS or (begins and text.rstrip().endswith("]")):
    cure = "write them with json.dumps, not str"
    raise wrong(field, "messages, or these as JSON", text, cure)
  return None


def _messages(field: str, value) -> list[dict[str, str]]:
  if isinstance(value, str):
    if not value.strip():
      raise config.Error(f"field {field!r}: expected a question, found empty text")
    value = _listed(field, value) or value
  if isinstance(value, str):
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
    role, content, key = message.get("role"), message.get("content"), "content"
    if role is None and "from" in message:
      role, content, key = message["from"], message.get("value"), "value"
      if not isinstance(role, str) or role not in _SAYERS:
        raise config.Error(
          f"field '{at}.from': expected one of {', '.join(_SAYERS)}, found {role!r:.40}"
        )
      role = _SAYERS[role]
    if role not in ROLES:
      raise config.Error(
        f"field '{at}.role': expected one of {', '.join(ROLES)}, found {role!r}"
      )
    if isinstance(content, list) and all(
      isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
      content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
      raise wrong(f"{at}.{key}", "text", content, "images are not supported")
    messages.append({"role": role, "content": content})
  return messages


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

  Of a worked solution (`solution`, `output`, a reference message) only the last \\boxed
  counts, and of GSM8K's answers what follows the last `####`.
  """
  name, value = _reference(values, reference, need, None)
  return _answers(name, value, need, example)


def _reference(
  values: dict, reference: str | None, need: bool, columns: Mapping[str, str] | None
):
  """(name, value) of the reference answer; no name: it is the last message.

  columns: of a row of a file, by field; None where it is one of responses.
  """
  if columns and "answer" in columns:
    return columns["answer"], _of_column("answer", values, columns)
  model = values.get("reward_model")
  if isinstance(model, dict) and model.get("ground_truth") is not None:
    return "reward_model.ground_truth", model["ground_truth"]
  name = next((field for field in _ANSWERS if field in values), None)
  if name is not None or reference is not None or columns is None:
    return name, reference if name is None else values[name]
  name = next((field for field in _MORE if field in values), None)
  if name is None or not (need or isinstance(values[name], str)):
    return None, None
  return name, values[name]


def _answers(name: str | None, value, need: bool, example: str) -> list[str]:
  """The texts of a reference answer: of a list those of all that are right."""
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
  text = sample.number_text(value) if isinstance(value, float) else str(value)
  if name is None or name.partition("[")[0] not in _BARE:
    boxed = answer_lib.boxed(text)
    text = text if boxed is None else boxed
  text = text.rpartition("####")[2].strip()
  if not text and need:
    raise config.Error(f"field {name or 'messages'!r}: expected an answer, found none")
  return text


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
