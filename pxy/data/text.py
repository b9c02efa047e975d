"""Documents of a text file: its paragraphs, for likelihoods of text held out.

A paragraph ends at a blank line. Its name is a hash of its text, so that the same
documents of two models are paired whatever file they came in; of equal ones the first
stays. No more than MOST bytes are ever read: a file is somebody else's.
"""

import dataclasses
import hashlib
import pathlib

from pxy import config

MOST = 64 * 2**20
"""Bytes of a file."""
LONGEST = 2**20
"""Characters of a paragraph."""


@dataclasses.dataclass(frozen=True)
class Text:
  """A document.

  Attributes:
    id: 16 hexadecimal digits, a function of the text.
    line: of the file on which it begins, from 1.
    text: lines with newlines between them, without space at the ends.
  """

  id: str
  line: int
  text: str


def read(path: str | pathlib.Path, shortest: int = 1) -> list[Text]:
  """The paragraphs of a .txt file, in its order; of equal ones the first.

  Args:
    path: of a file in UTF-8, with or without a byte order mark.
    shortest: characters; shorter paragraphs, as headings are, are left out.

  Raises:
    config.Error: there is no such file, it is no text, too large, or has none.
  """
  path = pathlib.Path(path)
  if path.suffix != ".txt":
    raise config.Error(f"{path}: expected a .txt file, with blank lines between texts")
  if not path.is_file():
    raise config.Error(f"{path}: no such file")
  try:
    with path.open("rb") as file:
      data = file.read(MOST + 1)  # it may grow behind a check of its size
  except OSError as error:
    raise config.Error(f"{path}: cannot be read ({error.strerror})") from None
  if len(data) > MOST:
    raise config.Error(f"{path}: more than {MOST:,} bytes; take a part of it")
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise config.Error(
      f"{path}, line {line}: not UTF-8 text; convert the file to UTF-8"
    ) from None
  if "\0" in text:
    line = text.count("\n", 0, text.index("\0")) + 1
    raise config.Error(f"{path}, line {line}: has a NUL character: this is no text")
  found: dict[str, Text] = {}
  for line, paragraph in _paragraphs(text):
    if len(paragraph) > LONGEST:
      raise config.Error(
        f"{path}, line {line}: a paragraph of {len(paragraph):,} characters, more than"
        f" {LONGEST:,}; put blank lines between documents"
      )
    if len(paragraph) >= shortest:
      name = hashlib.sha256(paragraph.encode()).hexdigest()[:16]
      found.setdefault(name, Text(name, line, paragraph))
  if not found:
    raise config.Error(f"{path}: no paragraph of {shortest} characters or more")
  return list(found.values())


def _paragraphs(text: str):
  """(line on which it begins, paragraph) of each."""
  lines, first = [], 0
  for number, line in enumerate([*text.replace("\r\n", "\n").split("\n"), ""], 1):
    if line.strip():
      first = first if lines else number
      lines.append(line.rstrip())
    elif lines:
      yield first, "\n".join(lines).strip()
      lines = []
