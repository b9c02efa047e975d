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

A model learned to end its turn as the template does. `ending` looks at what stands
behind an assistant's message: if that is no stop token, responses would run on.
Left out: tools, documents, and the continuation of a started assistant message.
"""

import datetime
import functools
import itertools
import json
import re
from collections.abc import Sequence

import jinja2
import jinja2.ext
import jinja2.sandbox

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


def render(
  tokenizer: tokenizer_lib.Tokenizer,
  messages: Sequence[dict],
  kind: str = "chat",
  system: str = "",
  arguments: Sequence[str] = (),
) -> list[int]:
  """Ids of the prompt, up to where the assistant's answer begins.

  `chat` uses the tokenizer's chat template, or ChatML when it has none; `plain` is the
  contents with blank lines between them, nothing added but the tokenizer's prefix.

  Args:
    tokenizer: encodes the text and knows the control pieces.
    messages: dicts of `role` and `content`, both strings; the last is the user's.
    kind: `chat` or `plain`.
    system: put first, unless the messages begin with a system message. Empty: nothing.
    arguments: variables of the chat template as NAME=VALUE; see `variables`.

  Raises:
    config.Error: the template is broken, refuses the messages, or needs control tokens
      that the tokenizer does not have.
  """
  messages = [{"role": m["role"], "content": m["content"]} for m in messages]
  if system and (not messages or messages[0]["role"] != "system"):
    messages.insert(0, {"role": "system", "content": system})
  if kind == "plain":
    if arguments:
      raise config.Error("data.template_arguments: template 'plain' has no variables")
    text = "\n\n".join(m["content"] for m in messages if m["content"])
    return [*tokenizer.prefix_ids, *tokenizer.encode(text)]
  if kind != "chat":
    raise config.Error(f"template {kind!r} is none of chat, plain")
  return _cut(tokenizer, *_write(tokenizer, messages, variables(arguments)))


def source(tokenizer: tokenizer_lib.Tokenizer) -> str | None:
  """The chat template: the tokenizer's, or ChatML where it has the tokens of that."""
  if tokenizer.chat_template is not None:
    return tokenizer.chat_template
  return CHATML if all(piece in tokenizer.controls for piece in _CHATML) else None


def ending(
  tokenizer: tokenizer_lib.Tokenizer, kind: str = "chat", arguments: Sequence[str] = ()
) -> str | None:
  """What makes one doubt that responses end where the model's turn does; mostly None.

  Raises:
    config.Error: the template ends a turn with a control token that is no stop token.
  """
  if kind == "plain" or source(tokenizer) is None:
    return None
  given = variables(arguments)
  answer = "The sum is three."
  chat = [{"role": "user", "content": "What is 1 + 2?"}]
  chat.append({"role": "assistant", "content": answer})
  try:
    text, _ = _write(tokenizer, chat, given, prompt=False)
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


def stops(tokenizer: tokenizer_lib.Tokenizer) -> str:
  """The tokens that end a response, for a person to read."""
  pieces = {number: piece for piece, number in tokenizer.controls.items()}
  return ", ".join(pieces[number] for number in tokenizer.stop_ids)


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
  pieces = {number: piece for piece, number in tokenizer.controls.items()}
  runs = itertools.groupby(ids, key=lambda i: pieces.get(i))
  return "".join(
    piece * len(list(run)) if piece is not None else tokenizer.decode(list(run))
    for piece, run in runs
  )


def _write(tokenizer, messages, given: dict, prompt: bool = True) -> tuple[str, str]:
  """The template's output, and the mark that breaks control pieces of the messages.

  prompt: an answer is to follow, else the chat ends here.
  """
  program = source(tokenizer)
  if program is None:
    missing = next(piece for piece in _CHATML if piece not in tokenizer.controls)
    raise config.Error(
      f"the tokenizer has no chat template and no {missing}: use --template plain"
      " (of a run, --data.template plain)"
    )
  everything = "".join(m["role"] + m["content"] for m in messages)
  mark = next(c for c in map(chr, _PRIVATE) if c not in everything and c not in program)
  pieces = _pieces(tuple(tokenizer.controls))

  def broken(text):
    return pieces.sub(lambda match: match[0][0] + mark + match[0][1:], text)

  # What a template may count on: those that are not named are not defined, but there
  # are no tools and documents.
  names = {key: tokenizer_lib.content(v) for key, v in tokenizer.settings.items()}
  names = {k: v for k, v in names.items() if k.endswith("_token") and v is not None}
  try:
    text = _compile(program).render(
      **({"tools": None, "documents": None} | names | given),
      messages=[{key: broken(value) for key, value in m.items()} for m in messages],
      add_generation_prompt=prompt,
    )
  except Exception as error:  # a template is a program: it can fail in any way
    reason = " ".join(str(error).split())[:200]
    raise config.Error(f"the tokenizer's chat template failed: {reason}") from None
  return text, mark


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


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
  # The settings and globals that published templates are written for.
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
  )
  environment.globals["raise_exception"] = _refuse
  environment.globals["strftime_now"] = lambda x: datetime.datetime.now().strftime(x)
  environment.filters["tojson"] = lambda x, **options: json.dumps(
    x, ensure_ascii=False, **options
  )
  return environment.from_string(source)


def _refuse(message):
  raise jinja2.TemplateError(message)
