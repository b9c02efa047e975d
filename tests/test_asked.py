"""What a model says of its own answers: exact values from a scripted model."""

import math
import types

import numpy as np
import pytest

from pxy import config
from pxy.evaluate import asked
from pxy.text import tokenizer as tokenizer_lib

TOK = tokenizer_lib.Bytes()
ANSWERS = [["4", "5", None, "4"], ["9", None, "9", "9"]]


def scripted(chances, seen):
  """A likelihood: log p of a continuation by what stands in the context."""

  def likelihood(params, rows):
    out = []
    for ids, _, said in rows:
      text, word = TOK.decode(list(ids)), TOK.decode(said.tolist())
      seen.append((text, word))
      answer = text.partition("Proposed answer: ")[2].partition("\n")[0]
      p = chances(answer, word.strip())
      out.append((None if p is None else math.log(p), 0.0))
    return out

  return likelihood


def policy(room=1000):
  return types.SimpleNamespace(
    tokenizer=TOK, params=None, arch=types.SimpleNamespace(context=room)
  )


def found(chances, room=1000, seen=None):
  pairs = asked.pairs(ANSWERS)
  data = config.Data(template="plain")
  questions = ["2 + 2?", "3 * 3?"]
  likelihood = scripted(chances, [] if seen is None else seen)
  return pairs, asked.confidences(policy(room), likelihood, data, questions, pairs)


def test_each_answer_is_asked_about_once_and_words_weigh_by_their_probability():
  def chances(answer, word):
    true = {"4": 0.8, "5": 0.1, "9": 0.5}[answer]
    return {"True": true / 10, "False": (1 - true) / 10, "50%": 0.3, "100%": 0.1}.get(
      word, 1e-9
    )

  seen = []
  pairs, values = found(chances, seen=seen)
  assert pairs == [(0, "4"), (0, "5"), (1, "9")]
  np.testing.assert_allclose(values["p_true"], [0.8, 0.1, 0.5])
  np.testing.assert_allclose(values["stated"], [0.625] * 3, rtol=1e-6)
  assert seen[0][0].startswith("2 + 2?\n\nProposed answer: 4\n")
  assert seen[0][1] == " True", "a text goes on with a space"
  conf_PR = asked.table(ANSWERS, pairs, values["p_true"])
  np.testing.assert_allclose(conf_PR[0], [0.8, 0.1, np.nan, 0.8])
  np.testing.assert_allclose(conf_PR[1], [0.5, np.nan, 0.5, 0.5])


def test_what_has_no_log_prob_has_no_confidence():
  pairs, values = found(lambda answer, word: None if answer == "5" else 0.5)
  assert values["p_true"] == [0.5, None, 0.5]
  assert np.isnan(asked.table(ANSWERS, pairs, values["p_true"])[0, 1])


def test_a_context_that_is_too_short_is_one_line():
  with pytest.raises(config.Error, match="--p-true: a question with an answer has"):
    found(lambda answer, word: 0.5, room=60)
