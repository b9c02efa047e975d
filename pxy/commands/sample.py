"""`pxy sample`: responses to a prompt or to chats, with the sampler of training.

A single response to a terminal is written as it is drawn.
"""

import json
import sys

import jax
import numpy as np

from pxy import config
from pxy.data import records, rows
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.weights import load


def command(options) -> None:
  """Prints `n` responses to each chat, as text or one JSON object each."""
  if options.n < 1:
    raise config.Error(f"--n {options.n}: must be >= 1")
  chats = _chats(options)
  sampling = config.Sampling(
    temperature=options.temperature,
    top_k=options.top_k,
    top_p=options.top_p,
    max_new_tokens=options.max_new_tokens,
    slots=min(options.n * len(chats), config.Sampling().slots),
  )
  config.check(config.Train(sampling=sampling, seed=options.seed))
  policy = load.load(options.model, options.step)
  doubt = template.ending(
    policy.tokenizer, options.template, options.template_arguments
  )
  if doubt:
    print(f"pxy: warning: {doubt}", file=sys.stderr)
  how = options.template, options.system, options.template_arguments
  prompts = [
    np.asarray(template.render(policy.tokenizer, chat, *how), np.int32)
    for chat in chats
  ]
  for ids in prompts:
    _fits(len(ids), options.max_new_tokens, policy.arch.context)
  one = options.n * len(chats) == 1
  live = one and not options.json and sys.stdout.isatty()
  stream = Stream(policy.tokenizer) if live else None
  with engine_lib.Engine(
    policy.arch,
    sampling=sampling,
    stop_ids=policy.tokenizer.stop_ids,
    max_prompt_tokens=max(map(len, prompts)),
  ) as engine:
    samples = engine.run(
      policy.params,
      prompts,
      options.n,
      key=jax.random.key(options.seed),
      greedy=options.greedy,
      on_draw=stream,
    )
  if stream is not None:
    stream.end()
    return
  for p, group in enumerate(samples):
    for r, sample in enumerate(group):
      text = policy.tokenizer.decode(sample.ids.tolist())
      if options.json:
        record = {
          "prompt_ids": prompts[p].tolist(),
          "ids": sample.ids.tolist(),
          "text": text,
          "logps": [float(x) for x in sample.logp],
          "stop": sample.stop,
        }
        print(json.dumps(record, ensure_ascii=False))
      elif one:
        print(text)
      else:
        chat = f"{p + 1}, " if len(chats) > 1 else ""
        print(f"--- {chat}{r + 1} ---\n{text}")


class Stream:
  """Writes a response's text as its tokens come, character by whole character."""

  def __init__(self, tokenizer, file=None):
    self._tokenizer = tokenizer
    self._file = sys.stdout if file is None else file
    self._ids: list[int] = []
    self._written = 0

  def __call__(self, p: int, r: int, ids: np.ndarray) -> None:
    """Takes the next ids; what may still change is held back."""
    self._ids += ids.tolist()
    # A character of several bytes may be cut between two tokens.
    self._write(self._tokenizer.decode(self._ids).rstrip("\ufffd"))

  def end(self) -> None:
    """The rest, and the end of the line."""
    self._write(self._tokenizer.decode(self._ids))
    print(file=self._file)

  def _write(self, text: str) -> None:
    print(text[self._written :], end="", file=self._file, flush=True)
    self._written = max(self._written, len(text))


def _chats(options) -> list[list[dict]]:
  """The conversations to answer."""
  path = options.messages
  if (options.prompt is None) == (path is None):
    raise config.Error("give either --prompt TEXT or --messages FILE")
  if path is None:
    return [[{"role": "user", "content": options.prompt}]]
  if not path.is_file():
    raise config.Error(f"--messages {path}: no such file")
  if path.suffix not in (".json", ".jsonl", ".parquet"):
    raise config.Error(
      f"--messages {path}: expected a .json file with one chat, or a .jsonl or .parquet"
      " file with one in each row"
    )
  if path.suffix != ".json":
    found = list(rows.read(path, need_answer=False))
    for row in found:
      if isinstance(row, config.Error):
        raise row
    if not found:
      raise config.Error(f"--messages {path}: it holds no chat")
    return [row.messages for row in found]
  try:
    value = records.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise config.Error(f"--messages {path}: {' '.join(str(error).split())}") from None
  value = value if isinstance(value, dict) else {"messages": value}
  row = rows.parse(value, str(path))
  return [row.messages]


def _fits(prompt: int, new: int, context: int) -> None:
  if prompt == 0:
    raise config.Error("--prompt: it is empty; with --template plain, give some text")
  if prompt >= context:
    raise config.Error(
      f"--prompt: it has {prompt} tokens, and the model's context is {context}: shorten"
      " it"
    )
  if prompt + new > context:
    raise config.Error(
      f"--max-new-tokens {new}: the prompt takes {prompt} of the model's {context}"
      f" tokens; give at most {context - prompt}"
    )
