"""What the pictures of a probe are drawn from, beside its measures: points, no claims.

  reliability   accuracy by confidence, with what a calibrated model gives there
  risk          error rate of the surest responses, by how many of them are taken
  answers       what is answered over all questions, what is right, and what is
                answered without a question
  variants      a few questions in every variant, with what was answered

They are JSON, and stand under `figures` in the report of `pxy probe`.
"""

import collections
import math
from collections.abc import Sequence

import numpy as np

from pxy.evaluate import probe, store
from pxy.measures import calibration, estimate, ranking

COVERAGES = tuple(range(10, 101, 10))
"""Percent of the responses, the surest first."""
QUESTIONS = 3
"""Whose variants are shown: the first of the task, nothing is picked."""
ANSWERS = 3
"""Of a question in a variant: the commonest."""


def of(t: probe.Table, parts: Sequence[str]) -> dict[str, list]:
  """The figures of some of probe.PARTS that the task's columns allow."""
  out = {}
  if "calibration" in parts and (held := probe.agreement(t)) is not None:
    confidence, right_PR = held
    out["reliability"] = calibration.reliability(confidence, right_PR)
    out["risk"] = _risk(t.ids, confidence.conf_PR, right_PR)
  if "bias" in parts and (few := probe.marginal_of(t)) is not None:
    out["answers"] = _answers(few)
  if "robust" in parts and probe.varied(t):
    out["variants"] = _variants(t)
  return {name: found for name, found in out.items() if found}


def alone(answers: list[dict], stored: store.Stored, context: str) -> None:
  """Adds to the figure `answers` the shares of them without a question."""
  count_A = probe.counted(stored, [row["answer"] for row in answers])
  for row, count in zip(answers, count_A if count_A.any() else (), strict=False):
    row[context] = float(count / count_A.sum())


def _risk(ids, conf_PR, right_PR) -> list[dict]:
  out = []
  for coverage in COVERAGES:
    spec = ranking.accuracy(ids, "agreement", conf_PR, right_PR, coverage)
    found = estimate.measure(spec)
    if found is not None:
      risk = {"risk": 1 - found.value, "low": 1 - found.high, "high": 1 - found.low}
      out.append({"coverage": coverage / 100, **risk, "n": found.n})
  return out


def _answers(few: probe.Table) -> list[dict]:
  """The interval is 1.96 standard errors over problems."""
  share_PA = probe.few_shares(few)
  on_P = ~np.isnan(share_PA).any(1)
  share_PA, gold_P, n = share_PA[on_P], few.gold_P[on_P], int(on_P.sum())
  texts = probe.few_answers(few)
  out = []
  for a, text in enumerate(texts if n > 1 else ()):
    mean = float(share_PA[:, a].mean())
    reach = 1.96 * float(share_PA[:, a].std(ddof=1)) / math.sqrt(n)
    span = {"low": max(0.0, mean - reach), "high": min(1.0, mean + reach)}
    right = float((gold_P == a).mean())
    out.append({"answer": text, "given": mean, **span, "right": right, "n": n})
  return out


def _variants(t: probe.Table) -> list[dict]:
  rows = sorted(range(len(t.ids)), key=lambda p: t.problems[p]["place"])
  groups: dict[str, list[int]] = {}
  for p in rows:
    groups.setdefault(str(t.problems[p]["group"]), []).append(p)
  right_PR = probe.best(t)
  return [
    {
      "group": group,
      "rows": [
        {
          "variant": str(t.problems[p]["variant"]),
          "prompt": t.problems[p]["prompt"],
          "reference": t.problems[p]["answer"],
          "answers": _commonest(t.stored.answers[p]),
          "right": int(np.nansum(right_PR[p])),
          "n": int((~np.isnan(right_PR[p])).sum()),
        }
        for p in places
      ],
    }
    for group, places in list(groups.items())[:QUESTIONS]
  ]


def _commonest(answers: Sequence[str | None]) -> list[list]:
  """[answer, how often] of the commonest; null where there was none."""
  found = collections.Counter(answers)
  order = sorted(found.items(), key=lambda pair: (-pair[1], str(pair[0])))
  return [list(pair) for pair in order[:ANSWERS]]
