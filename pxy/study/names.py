"""Which of a claim's measures are of a run's own files, and which of `pxy probe`."""

import re

from pxy import fields
from pxy.evaluate import behaviour
from pxy.measures import names as names_lib

KINDS = re.compile(
  rf"bound/pass@(?P<k>\d+)"
  rf"|(?P<eval>thoughts/(?:{'|'.join(behaviour.KINDS)})(?:_rate)?|length/mean)"
  r"|train/steps@(?P<score>-?\d*\.?\d+)|train/(?P<entropy>entropy)"
  r"|align/(?P<align>cosine|inner|negative)"
)


def check(measure: str) -> None:
  """Raises fields.Error for a name that is none."""
  if probed(measure):
    fields.need(
      not names_lib.of_run(measure),
      f"{measure!r} is no measure: of a run there are thoughts/KIND and"
      f" thoughts/KIND_rate ({', '.join(behaviour.KINDS)}), length/mean,"
      " train/steps@SCORE, train/entropy, align/cosine, align/inner, align/negative",
    )
    names_lib.sentence(measure)


def tries(measure: str) -> int | None:
  """The k of `bound/pass@k`, which is of the run's own evaluation; None of others."""
  match = KINDS.fullmatch(measure)
  return int(match["k"]) if match and match["k"] else None


def aligned(measure: str) -> bool:
  """Whether it is of `pxy align`, on the model before training."""
  return measure.startswith("align/")


def looks(measure: str) -> bool:
  """Whether it is of what the responses of a run's own evaluation look like."""
  return measure.startswith("thoughts/")


def probed(measure: str) -> bool:
  """Whether it is of `pxy probe`."""
  return not KINDS.fullmatch(measure)
