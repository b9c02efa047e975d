"""Whether a run goes on as what it was: each difference has a NAME, and is refused
unless `--accept NAME` takes it.

  a field of the config, `phases.0.lr`     config.json
  what the run was made of: MADE_OF        used.json, by digest (run/used.py)
  records that were cut since: RECORDS     counts in the checkpoint (Log.mark)

What was accepted is noted in used.json, with what stood there before: a run whose data
changed on the way is none that can be made again from its config.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

from pxy import config, fields

MADE_OF = ("data", "grader", "terms", "template", "tokenizer", "model", "reference")
"""Files and rows; the code that grades; functions of the user's own in the terms; the
chat template; the tokenizer; the architecture; weights that a KL term reads again."""
RECORDS = ("metrics.jsonl", "completions")
FREE = {
  config.Train: (
    "steps",
    "eval_every",
    "probe_every",
    "save_every",
    "save",
    "mirror",
    "guard",
    "waits",
  ),
  config.Pretrain: ("eval_every", "save_every", "save", "mirror", "guard", "waits"),
}
"""Fields that change nothing of what was done so far: they may change on resume. Steps
do where learning rates depend on them: in pre-training, and in an open-ended phase that
has a schedule."""


class Same:
  """Compares, refuses, and notes what was accepted.

  Args:
    cfg: the config.
    place: begins each message.
    accept: names of differences.

  Attributes:
    noted: {"name", "was", "now"} of each difference that was there and was accepted.

  Raises:
    config.Error: no difference could have one of the names, or, from the methods, one
      is not accepted.
  """

  def __init__(
    self, cfg: config.Train | config.Pretrain, place: str, accept: Sequence[str]
  ):
    self._cfg, self._place, self._accept = cfg, place, accept
    self.noted: list[dict] = []
    tops = fields.to_dict(cfg)
    for name in accept:
      if name not in (*MADE_OF, *RECORDS) and name.partition(".")[0] not in tops:
        raise config.Error(
          f"--accept {name}: no difference is called so; it may be"
          f" {', '.join((*MADE_OF, *RECORDS))}, or a field such as phases.0.lr"
        )

  def of_config(self, held) -> None:
    """held: the JSON of config.json; a field that it lacks had its default."""
    free = set(FREE[type(self._cfg)]) - ({"steps"} if _ends(self._cfg) else set())
    found = [
      difference
      for difference in _differences(_filled(held, type(self._cfg)), self._cfg)
      if difference[0].partition(".")[0] not in free
    ]
    self._settle(
      sorted(found, key=lambda difference: difference[0]),
      lambda said: f" holds a run of another config ({said} differ)",
      "give another folder, or the same options as before",
    )

  def of_used(self, held: dict, now: dict) -> None:
    """What the run was and is made of, by name, as run/used.py has it."""
    each = [(name, held.get(name), now.get(name)) for name in MADE_OF]
    self._settle(
      [one for one in each if _content(one[1]) != _content(one[2])],
      lambda said: f": not what the run was made with: {said}",
      "bring it back, or give another folder",
      _which,
    )

  def of_records(self, marks: dict | None, found: dict[str, int]) -> None:
    """Log.mark when the checkpoint was saved (None in those of a new run), and now,
    after the records of later steps were dropped."""
    each = [(name, (marks or {}).get(name), now) for name, now in found.items()]
    self._settle(
      [one for one in each if marks and one[1] != one[2]],
      lambda said: f": {said}",
      "bring the file back, or give another folder",
      lambda name, was, now: (
        f"{name} has {now} of the {was} records up to the checkpoint"
      ),
    )

  def _settle(
    self,
    found: Sequence[tuple],
    fact: Callable[[str], str],
    cure: str,
    of_one: Callable[..., str] = lambda name, *_: name,
  ) -> None:
    """Raises for the (name, was, now) that are not accepted; tells of the others."""
    new = [one for one in found if one[0] not in self._accept]
    shown = (new or found)[:5]
    more = len(new or found) - len(shown)
    said = ", ".join(of_one(*one) for one in shown) + (f" and {more} more" * bool(more))
    text = self._place + fact(said)
    if new:
      options = " ".join(f"--accept {name}" for name, *_ in shown)
      raise config.Error(f"{text}: {cure}, or go on with what is there: {options}")
    if found:
      print(f"pxy: {text}: going on, as accepted", file=sys.stderr)
    self.noted += [{"name": n, "was": was, "now": now} for n, was, now in found]


def _ends(cfg: config.Train | config.Pretrain) -> bool:
  """Whether the rates of steps that are made depend on how many there will be."""
  last = cfg.phases[-1] if isinstance(cfg, config.Train) else None
  return last is None or (last.steps is None and last.needs_end)


def _filled(held, kind):
  """JSON of a config, with defaults; as it is, where it is none of this kind."""
  try:
    return fields.to_dict(fields.from_dict(kind, held))
  except config.Error:
    return held


def _differences(held, cfg) -> Iterator[tuple]:
  """(dotted name, was, now) of the fields in which a config differs from JSON."""

  def walk(a, b, at):
    if isinstance(a, dict) and isinstance(b, dict):
      for name in a.keys() | b.keys():
        yield from walk(a.get(name), b.get(name), f"{at}.{name}".lstrip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
      for i, pair in enumerate(zip(a, b, strict=True)):
        yield from walk(*pair, f"{at}.{i}")
    elif a != b:
      yield at or "all fields", a, b

  yield from walk(held, fields.to_dict(cfg), "")


def _content(entry):
  """What an entry says without where things lie: a file that moved is the same."""
  if isinstance(entry, dict):
    return {name: _content(value) for name, value in entry.items() if name != "path"}
  return [_content(value) for value in entry] if isinstance(entry, list) else entry


def _which(name: str, was, now) -> str:
  """The name of an entry, with its files that are others than they were."""
  known, files = (
    value.get("files", []) if isinstance(value, dict) else [] for value in (was, now)
  )
  known = _content(known) if isinstance(known, list) else []
  new = [one["path"] for one in files if _content(one) not in known]
  return f"{name} ({', '.join(new[:3])})" if new else name
