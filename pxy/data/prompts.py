"""Prompts of a task as a function of the step.

  batch(step) = order[step * P : (step + 1) * P],   order = epoch after epoch, shuffled

The order is a grain MapDataset: random access, each epoch its own permutation, batches
run on across epochs. So the data's position is the step, and nothing is to be saved. In
a mixture each source has an order of its own, and place i of the whole is a fixed
function of i and the weights: each stretch of it has the sources in their proportion.

Every row is read, checked, rendered and measured before training starts. Prompts over
`max_prompt_tokens` are dropped and counted, never cut: half a question has another
answer.

Left out: streaming of files larger than memory.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pxy import config
from pxy.data import rows, sources
from pxy.rewards import answer
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib

_END = 24
"""Tokens that hold an opening <think>, whatever the tokenizer."""


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What a response answers.

  Attributes:
    ids: int32 [S], up to where the answer begins.
    text: contents of the row's messages, with blank lines between them.
    answer: the reference answer.
    task: the row's data source, by which it is graded and reported.
    uid: row number in the task, by which its samples are keyed; in a mixture the
      sources are numbered one after the other.
    columns: the whole row, for user-defined graders.
    in_think: it ends inside <think>, which its template has opened.
  """

  ids: np.ndarray
  text: str
  answer: str
  task: str
  uid: int
  columns: dict
  in_think: bool = False


class Source:
  """The prompts of a task and split.

  Args:
    groups: the prompts of each source of a mixture, mostly one.
    weights: of the sources.

  Attributes:
    dropped: prompts left out because they are too long.
    duplicates: prompts that an earlier row has, kept.
    split: the split that was asked for, or None when a file does not say.
    of: the split these are: where a file names none, `all rows`.
    fields: of files, the columns that questions and answers were taken from.
  """

  def __init__(
    self,
    groups: Sequence[Sequence[Prompt]],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    dropped: int = 0,
    split: str | None = None,
    of: str = "all rows",
    fields: Sequence[str] = (),
  ):
    import grain  # a second or two, with what it imports

    self.prompts = [prompt for group in groups for prompt in group]
    plain = [grain.MapDataset.source(group) for group in groups]
    self._plain = _mixed(plain, weights)
    self._order = _mixed(
      [one.seed((seed + i) % 2**32).shuffle().repeat() for i, one in enumerate(plain)],
      weights,
    )
    self.dropped, self.split, self.fields = dropped, split, tuple(fields)
    self.of = of if split is None else split
    self.duplicates = len(self) - len({p.ids.tobytes() for p in self.prompts})

  def __len__(self) -> int:
    return len(self.prompts)

  def batch(self, step: int, n: int) -> list[Prompt]:
    """The n prompts of a step, a pure function of (seed, step)."""
    return [self._order[i] for i in range(step * n, (step + 1) * n)]

  def first(self, n: int) -> list[Prompt]:
    """The first n prompts in the task's order, or all if there are fewer.

    Of a mixture, the first of each source in their proportion, until one has no more.
    """
    return [self._plain[i] for i in range(min(n, len(self._plain)))]

  def epoch(self, step: int, n: int) -> float:
    """How often the prompts have been gone through before `step`, n a step."""
    return step * n / len(self)


def _mixed(datasets: list, weights):
  """A grain.MapDataset of several."""
  import grain

  return datasets[0] if len(datasets) == 1 else grain.MapDataset.mix(datasets, weights)


def load(
  data: config.Data,
  tokenizer: tokenizer_lib.Tokenizer,
  split: str = "train",
  seed: int = 0,
) -> Source:
  """The task's prompts, of each source of a mixture those of this split.

  Raises:
    config.Error: unknown task, unreadable file, a row that cannot be used, or no prompt
      short enough.
  """
  groups, weights, named = [], [], True
  dropped = first = 0
  splits, fields = set(), []
  tokenizer, kind = template.prepared(tokenizer, data.template)
  for weight, task in parts(data):
    need = sources.needs_answer(data.judge, task)
    found = sources.read(task, split, need, data.columns)
    prompts, longest = [], 0
    for uid, row in found:
      ids = template.render(
        tokenizer,
        row.messages,
        kind,
        data.system,
        data.template_arguments,
      )
      longest = max(longest, len(ids))
      if len(ids) <= data.max_prompt_tokens:
        prompts.append(
          Prompt(
            ids=np.asarray(ids, np.int32),
            text=text_of(row),
            answer=row.answer,
            task=row.task,
            uid=first + uid,
            columns=row.columns,
            in_think=answer.opens(template.spell(tokenizer, ids[-_END:])),
          )
        )
    if not found:
      raise config.Error(f"{task}: no rows of split {split!r}")
    if not prompts:
      raise config.Error(
        f"{task}: all {len(found)} prompts are longer than data.max_prompt_tokens"
        f" {data.max_prompt_tokens}: raise it (the longest has {longest})"
      )
    groups.append(prompts)
    weights.append(weight)
    dropped += len(found) - len(prompts)
    first += 1 + max(uid for uid, _ in found)
    named = named and any(row.split == split for _, row in found)
    splits |= {row.split or "all rows" for _, row in found}
    fields += [row.fields for _, row in found if row.fields]
  return Source(
    groups,
    weights,
    seed=seed,
    dropped=dropped,
    split=split if named else None,
    of=" and ".join(sorted(splits)),
    fields=tuple(dict.fromkeys(fields)),
  )


def parts(data: config.Data) -> list[tuple[float, str]]:
  """(weight, task) of each source; config.Error where `columns` is of none of them."""
  found = sources.parts(data.task)
  if data.columns and not has_columns(data.task):
    raise config.Error(
      f"data.columns {data.columns!r}: {data.task} has no columns to name, for it is no"
      " file; leave it out (tfds:NAME?prompt=FEATURE,answer=FEATURE names features)"
    )
  return found


def has_columns(task: str) -> bool:
  """Whether a source of a task is one of files."""
  return any(sources.is_file(part) for _, part in sources.parts(task))


def of_task(data: config.Data, task: str) -> config.Data:
  """The same of another task, to which `columns` goes along if it is one of files."""
  columns = data.columns if has_columns(task) else ""
  return dataclasses.replace(data, task=task, columns=columns)


def text_of(row: rows.Row) -> str:
  """Contents of a row's messages, with blank lines between them."""
  return "\n\n".join(message["content"] for message in row.messages)
