"""Messages to prompt ids: the chat template; text in it cannot forge control tokens.

A chat template is a Jinja program that writes messages and control pieces into one
string. Encoding that string would let a user who types `<|im_end|>` end their own
message. So control pieces inside messages are broken by a mark (a private-use character
that occurs in no message) before the template runs; what is whole afterwards was
written by the template. The string is cut at the whole pieces, which become control
ids; the mark is taken out of the text between them, which is encoded as text. The
template sees the messages as they are, apart from the mark, so templates that trim or
inspect them work.

Templates come with downloaded models: they run in Jinja's immutable sandbox.

A template is tried before it is used, on messages that are numbers: one that drops a
message, does not open the answer, or does not know a variable that it is given, is
refused, since all that it writes would be another task.

A model learned to end its turn as the template does. `ending` looks at what stands
behind an assistant's message: if that is no stop token, responses would run on.
Left out: tools, documents, and the continuation of a started assistant message.
"""

import copy
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Sequence

from pxy import config
from pxy.text import tokenizer as tokenizer_lib

CHATML = (
  "{% for message in messages %}"
  "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
  "{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHATML = ("<|im_start|>", "<|im_end|>")
_PRIVATE = range(0xE000, 0xF900)
_OURS = ("messages", "add_generation_prompt")
_ROLES = ("system", "user", "assistant")
FILE = ".jinja"
_LONGEST = 2**20
"""Bytes of a template's file; published ones have up to 20,000."""
_SHOWN = 300
"""Characters of a rendered text that a message shows."""


def render(
  tokenizer: tokenizer_lib.Tokenizer,
  messages: Sequence[dict],
  kind: str = "chat",
  system: str = "",
  arguments: Sequence[str] = (),
) -> list[int]:
  """Ids of the prompt, up to where the assistant's answer begins.

  `chat` uses the tokenizer's chat template, or ChatML when it has none; FILE.jinja is
  used instead of it; `plain` is the contents with blank lines between them, nothing
  added but the tokenizer's prefix.

  Args:
    tokenizer: encodes the text and knows the control pieces.
    messages: dicts of `role` and `content`, both strings; the last is the user's.
    kind: `chat`, `plain` or FILE.jinja.
    system: put first, unless the messages begin with a system message. Empty: nothing.
    arguments: variables of the chat template as NAME=VALUE; see `variables`.

  Raises:
    config.Error: the template is broken, refuses or drops messages, does not open the
      answer, has no such variable, or needs control tokens that the tokenizer does not
      have.
  """
  messages = [{"role": m["role"], "content": m["content"]} for m in messages]
  if system and (not messages or messages[0]["role"] != "system"):
    messages.insert(0, {"role": "system", "content": system})
  if kind == "plain":
    if arguments:
      raise config.Error("data.template_arguments: template 'plain' has no variables")
    text = "\n\n".join(m["content"] for m in messages if m["content"])
    return [*tokenizer.prefix_ids, *tokenizer.encode(text)]
  tokenizer = using(tokenizer, kind)
  given = variables(arguments)
  program = _program(tokenizer)
  roles = tuple(m["role"] for m in messages)
  _try(program, json.dumps(given), roles)
  return _cut(tokenizer, *program.write(messages, given))


def using(tokenizer: tokenizer_lib.Tokenizer, kind: str) -> tokenizer_lib.Tokenizer:
  """The tokenizer with the chat template that `kind` asks for.

  Raises config.Error for a kind that is none, or a file that cannot be read.
  """
  if kind in ("chat", "plain"):
    return tokenizer
  if not kind.endswith(FILE):
    raise config.Error(f"template {kind!r} is none of chat, plain, FILE{FILE}")
  found = copy.copy(tokenizer)
  found.settings = tokenizer.settings | {"chat_template": _read(pathlib.Path(kind))}
  return found


def prepared(
  tokenizer: tokenizer_lib.Tokenizer, kind: str
) -> tuple[tokenizer_lib.Tokenizer, str]:
  """Tokenizer and kind with which `render` writes the same and opens no file: for who
  renders many chats. Raises as `using`."""
  return using(tokenizer, kind), "plain" if kind == "plain" else "chat"


def _read(path: pathlib.Path) -> str:
  if not path.is_file():
    raise config.Error(f"template {path}: no such file")
  with path.open("rb") as file:
    data = file.read(_LONGEST + 1)
  if len(data) > _LONGEST:
    raise config.Error(f"template {path}: more than {_LONGEST:,} bytes; no template")
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError:
    raise config.Error(f"template {path}: not UTF-8 text; convert it") from None
  if not text.strip():
    raise config.Error(f"template {path}: an empty file; write the template into it")
  return text


def source(tokenizer: tokenizer_lib.Tokenizer) -> str | None:
  """The chat template: the tokenizer's, or ChatML where it has the tokens of that.

  Raises config.Error where there are several by name, and none is the default.
  """
  found = tokenizer.chat_template
  if isinstance(found, list):
    raise config.Error(
      f"the tokenizer has chat templates by name ({_listed(found)}), and none is"
      f" 'default': write the one that you mean to a file, --template FILE{FILE}"
    )
  if found is not None and not isinstance(found, str):
    raise config.Error(
      f"tokenizer_config.json: chat_template is {type(found).__name__}, expected text"
    )
  if found is not None:
    return found
  return CHATML if all(piece in tokenizer.controls for piece in _CHATML) else None


def ending(
  tokenizer: tokenizer_lib.Tokenizer, kind: str = "chat", arguments: Sequence[str] = ()
) -> str | None:
  """What makes one doubt that responses end where the model's turn does; mostly None.

  Raises:
    config.Error: the template ends a turn with a control token that is no stop token.
  """
  tokenizer = using(tokenizer, kind)
  if kind == "plain" or source(tokenizer) is None:
    return None
  given = variables(arguments)
  answer = "The sum is three."
  chat = [{"role": "user", "content": "What is 1 + 2?"}]
  chat.append({"role": "assistant", "content": answer})
  try:
    text, _ = _program(tokenizer).write(chat, given, prompt=False)
  except config.Error as error:
    return f"how an assistant's turn ends cannot be seen ({error})"
  _, found, rest = text.rpartition(answer)
  if not found:
    return "how an assistant's turn ends cannot be seen: the chat template drops it"
  first = _pieces(tuple(tokenizer.controls)).search(rest)
  if first is None:
    return (
      f"the chat template ends an assistant's turn with {rest[:40]!r}, which holds no"
      f" control token; responses end at {stops(tokenizer)}, or when they are full"
    )
  number = tokenizer.control(first[0])
  if number not in tokenizer.stop_ids:
    raise config.Error(
      f"the chat template ends an assistant's turn with {first[0]}, but responses end"
      f" at {stops(tokenizer)}: add its id, {number}, to eos_token_id in the model's"
      " generation_config.json (`pxy export` makes such a folder of a .gguf file)"
    )
  return None


def _listed(entries: list) -> str:
  named = [entry.get("name") for entry in entries if isinstance(entry, dict)]
  return ", ".join(map(repr, named))[:_SHOWN]


def stops(tokenizer: tokenizer_lib.Tokenizer) -> str:
  """The tokens that end a response, for a person to read."""
  return ", ".join(tokenizer.pieces[number] for number in tokenizer.stop_ids)


def variables(arguments: Sequence[str]) -> dict:
  """A chat template's variables from NAME=VALUE: a value is JSON, or else text.

  `variables(["enable_thinking=false"]) == {"enable_thinking": False}`. Raises
  config.Error for what is not of that form, or would replace the messages.
  """
  found = {}
  for text in arguments:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or name in _OURS or name in found:
      raise config.Error(
        f"data.template_arguments {text!r}: expected NAME=VALUE, such as"
        f" enable_thinking=false, each name once, and none of {', '.join(_OURS)}"
      )
    try:
      found[name] = json.loads(value)
    except ValueError:
      found[name] = value
  return found


def spell(tokenizer: tokenizer_lib.Tokenizer, ids: Sequence[int]) -> str:
  """Ids as text with the control pieces in it, for a person to check a prompt."""
  runs = itertools.groupby(ids, key=tokenizer.pieces.get)
  return "".join(
    piece * len(list(run)) if piece is not None else tokenizer.decode(list(run))
    for piece, run in runs
  )


@functools.lru_cache(maxsize=64)
def _try(program: "_Program", given: str, roles: tuple[str, ...]) -> None:
  """Refuses a chat template under which chats of these roles would not be asked.

  given: its variables, as JSON.
  """
  given = json.loads(given)
  _known(program.source, given)
  # Numbers, since templates trim, fold and quote text.
  marks = [str(27182818 + 31415926 * i) for i in range(len(roles))]
  chat = [{"role": r, "content": m} for r, m in zip(roles, marks, strict=True)]
  text, _ = program.write(chat, given)
  for i in reversed(range(len(roles))):
    if marks[i] not in text and roles[i] in _ROLES:
      last = roles[i] == "user" and "user" not in roles[i + 1 :]
      what = "question" if last else f"{roles[i]} message"
      raise config.Error(
        f"the chat template drops the {what}: of {json.dumps(chat):.{_SHOWN}} it makes"
        f" {text[:_SHOWN]!r}; mend it in a file of yours, --template FILE{FILE}"
      )
  lead = _unopened(program, given, chat, text)
  if lead:
    raise config.Error(
      f"the chat template has no generation prompt: a prompt ends with {text[-80:]!r},"
      f" and {lead[:80]!r}, which opens an answer, does not follow; end it with"
      " `{% if add_generation_prompt %}...{% endif %}` in a file of yours, --template"
      f" FILE{FILE}"
    )


def _unopened(program: "_Program", given: dict, chat: list[dict], text: str) -> str:
  """What stands between a prompt and an answer, where the template does not write it
  before one is drawn."""
  answer = "16180339"
  try:
    if program.write(chat, given, prompt=False)[0] != text:
      return ""
    whole = [*chat, {"role": "assistant", "content": answer}]
    head, _, _ = program.write(whole, given, prompt=False)[0].rpartition(answer)
  except config.Error:  # it refuses such chats, so nothing can be said
    return ""
  return head[len(text) :].strip() if head.startswith(text) else ""


def _known(program: str, given: dict) -> None:
  """Refuses variables that the template never reads."""
  names = _jinja(lambda jinja: jinja.names(program))
  for name in given:
    if name not in names:
      known = ", ".join(sorted(names - {*_OURS, "raise_exception", "strftime_now"}))
      raise config.Error(
        f"data.template_arguments: the chat template has no variable {name!r}, so it"
        f" would change nothing; it reads {known or 'none'}"
      )


def _jinja(use: Callable):
  """What `use` makes of pxy.text.jinja; config.Error for whatever it raises, for a
  template is a program."""
  from pxy.text import jinja  # 50 ms, and `plain` needs none

  try:
    return use(jinja)
  except Exception as error:
    raise _failed(error) from None


def _failed(error: Exception) -> config.Error:
  reason = " ".join(str(error).split())[:200]
  return config.Error(f"the tokenizer's chat template failed: {reason}")


@dataclasses.dataclass(frozen=True)
class _Program:
  """A chat template with what it depends on.

  Attributes:
    source: in Jinja.
    controls: the control pieces of the tokenizer.
    names: its named tokens, such as bos_token, in pairs.
  """

  source: str
  controls: tuple[str, ...]
  names: tuple[tuple[str, str], ...]

  def write(self, messages, given: dict, prompt: bool = True) -> tuple[str, str]:
    """The template's output, and the mark that breaks control pieces of the messages.

    prompt: an answer is to follow, else the chat ends here.
    """
    everything = "".join(m["role"] + m["content"] for m in messages)
    everything += self.source
    mark = next(c for c in map(chr, _PRIVATE) if c not in everything)
    pieces = _pieces(self.controls)

    def broken(text):
      return pieces.sub(lambda match: match[0][0] + mark + match[0][1:], text)

    values = {"tools": None, "documents": None} | dict(self.names) | given
    values["messages"] = [{k: broken(v) for k, v in m.items()} for m in messages]
    values["add_generation_prompt"] = prompt
    text = _jinja(lambda jinja: jinja.program(self.source).render(values))
    return text, mark


def _program(tokenizer) -> _Program:
  """The tokenizer's chat template; config.Error: it has none."""
  found = source(tokenizer)
  if found is None:
    missing = next(piece for piece in _CHATML if piece not in tokenizer.controls)
    raise config.Error(
      f"the tokenizer has no chat template and no {missing}: use --template plain"
      f" (of a run, --data.template plain), or a template of yours, FILE{FILE}"
    )
  # What a template may count on: those that are not named are not defined, but there
  # are no tools and documents.
  names = {key: tokenizer_lib.content(v) for key, v in tokenizer.settings.items()}
  names = {
    k: v for k, v in names.items() if k.endswith("_token") and isinstance(v, (str, int))
  }
  return _Program(found, tuple(tokenizer.controls), tuple(names.items()))


def _cut(tokenizer, text: str, mark: str) -> list[int]:
  ids, start = [], 0
  for match in _pieces(tuple(tokenizer.controls)).finditer(text):
    ids += tokenizer.encode(text[start : match.start()].replace(mark, ""))
    ids.append(tokenizer.control(match[0]))
    start = match.end()
  return ids + tokenizer.encode(text[start:].replace(mark, ""))


@functools.lru_cache(maxsize=16)
def _pieces(pieces: tuple[str, ...]) -> re.Pattern:
  """Finds control pieces, the longest where one begins with another."""
  return re.compile("|".join(map(re.escape, sorted(pieces, key=len, reverse=True))))
