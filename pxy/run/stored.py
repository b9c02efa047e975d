"""Stored samples as the graded groups of a run: what was drawn before, by whoever.

They take the place of drawing, and of nothing else: which groups a step gets is a
function of seed and step, and phases, views, updates and checkpoints are as always. The
responses to a problem, in the file's order, become groups of data.responses; what is
over is left out, and counted. A row without a reward is graded when its step comes.

Nothing is cut: a prompt that is too long leaves its group out, and a response that is
too long is refused. Left out: files larger than memory.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.data import sources
from pxy.run import responses
from pxy.sampling import collect


@dataclasses.dataclass(frozen=True)
class Stored:
  """The groups of a file; made by `load`.

  Attributes:
    groups: answers by the uid of their prompt, data.responses each.
    ungraded: they have no rewards yet.
    told: in words, what the file holds and what of it is left out.
  """

  groups: list[list[collect.Answer]]
  ungraded: bool
  dropped: int
  told: str

  def source(self, seed: int) -> prompts_lib.Source:
    """The groups' prompts in an order of their own, as those of a task have it."""
    prompts = [group[0].prompt for group in self.groups]
    return prompts_lib.Source([prompts], seed=seed, dropped=self.dropped, split="train")

  def step(
    self,
    collector: collect.Collector,
    rounds: Sequence[Sequence[prompts_lib.Prompt]],
    *,
    version: int,
    max_failed: float,
  ) -> collect.Graded:
    """The graded responses of a training step, as collect.step has them."""

    def take(prompts, number):
      found = collect.Graded([self.groups[prompt.uid] for prompt in prompts])
      if self.ungraded:
        found = collect.grade(collector, found.answers, version=version)
      collect.refuse_failures(found, max_failed)
      return found

    return collect.refilled(take, rounds)


def load(cfg: config.Train, tokenizer, vocab: int) -> Stored:
  """The groups that data.rollouts names.

  Args:
    tokenizer: the model's; vocab: the model's ids.

  Raises:
    config.Error: a file or a row cannot be used, too few rows for a step, or a term
      asks for log-probs that they do not have.
  """
  word, size = cfg.data.rollouts, cfg.data.responses
  read = responses.read(word, cfg.data, tokenizer, vocab)
  _alike(read)
  _gradable(read, cfg.data.judge)
  _short(read, cfg.sampling.max_new_tokens)
  _logps(cfg, read)
  _controls(cfg, read)
  problems: dict[object, list[responses.Row]] = {}
  for row in read:
    first = problems.setdefault(row.key, [])
    if first and (
      row.answer.prompt.ids.tobytes() != first[0].answer.prompt.ids.tobytes()
    ):
      raise config.Error(
        f"{row.at}: another prompt than {first[0].at}, of the same problem"
        f" {row.key!r:.40}; name it otherwise, or leave `problem` out"
      )
    first.append(row)
  fits = {
    key: of
    for key, of in problems.items()
    if len(of[0].answer.prompt.ids) <= cfg.data.max_prompt_tokens
  }
  dropped = len(problems) - len(fits)
  groups: list[list[collect.Answer]] = []
  for of in fits.values():
    for at in range(0, len(of) - len(of) % size, size):
      prompt = dataclasses.replace(of[at].answer.prompt, uid=len(groups))
      groups.append(
        [dataclasses.replace(row.answer, prompt=prompt) for row in of[at : at + size]]
      )
  over = sum(len(of) % size for of in fits.values())
  told = (
    f"{word}: {len(read):,} responses to {len(problems):,} problems,"
    f" {len(groups):,} groups of {size} ({over} responses over, {dropped} prompts over"
    f" {cfg.data.max_prompt_tokens} tokens left out)"
  )
  if len(groups) < cfg.data.prompts:
    raise config.Error(
      f"{told}: too few for a step of data.prompts {cfg.data.prompts}; lower that or"
      " data.responses, or name more rows"
    )
  return Stored(groups, read[0].answer.outcome is None, dropped, told)


def _alike(read: Sequence[responses.Row]) -> None:
  """Refuses a file of which some rows have a reward, or advantages, and others not."""
  for name, of in (
    ("reward", lambda row: row.answer.outcome),
    ("advantages", lambda row: row.answer.sample.adv),
  ):
    lacking = of(read[0]) is None
    odd = next((row for row in read if (of(row) is None) != lacking), None)
    if odd is not None:
      has, lacks = (odd, read[0]) if lacking else (read[0], odd)
      raise config.Error(
        f"{lacks.at}: no field {name!r}, but {has.at} has one; write it in every row,"
        " or in none"
      )


def _gradable(read: Sequence[responses.Row], judge: config.Judge) -> None:
  for row in read:
    prompt = row.answer.prompt
    need = sources.needs_answer(judge, prompt.task)
    if row.answer.outcome is None and need and not prompt.answer:
      raise config.Error(
        f"{row.at}: neither `reward` nor `answer`; add one of the two, or name a grader"
        " that needs no answer"
      )


def _short(read: Sequence[responses.Row], limit: int) -> None:
  longest = max(read, key=lambda row: len(row.answer.sample.ids))
  if len(longest.answer.sample.ids) > limit:
    raise config.Error(
      f"{longest.at}: a response of {len(longest.answer.sample.ids)} tokens, and the"
      f" run's sampling.max_new_tokens is {limit}: raise it, or leave the row out"
    )


def _controls(cfg: config.Train, read: Sequence[responses.Row]) -> None:
  """Refuses advantages of the rows beside a control, which would do nothing."""
  given = next((row for row in read if row.answer.sample.adv is not None), None)
  for name, term in _terms(cfg):
    if given is not None and term.control != "none":
      raise config.Error(
        f"{given.at}: the row has `advantages`, and {name}.control {term.control!r}"
        " makes its own: drop the field, or set control none"
      )


def _logps(cfg: config.Train, read: Sequence[responses.Row]) -> None:
  """Refuses importance weights that nothing is known for."""
  for name, term in _terms(cfg):
    for row in read if term.tis != "none" else ():
      sample = row.answer.sample
      used = slice(None) if sample.mask is None else sample.mask
      if not np.isfinite(sample.logp[used]).all():
        raise config.Error(
          f"{row.at}: {name}.tis {term.tis!r} weighs by log p of each token under what"
          " drew it, and the row has no `logps`; set tis none"
        )


def _terms(cfg: config.Train) -> Iterator[tuple[str, config.Term]]:
  """The terms of all phases, with the names of their options."""
  for i, phase in enumerate(cfg.phases):
    for j, term in enumerate(phase.terms):
      yield f"phases.{i}.terms.{j}", term
