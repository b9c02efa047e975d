"""The rule for thoughts, by example and by count."""

import numpy as np
import pytest

from pxy.evaluate import behaviour


@pytest.mark.parametrize(
  ("thought", "kind"),
  [
    ("Wait, that is off.", "reflection"),
    ("waiting helps", "reflection"),
    ("I wait.", "execution"),
    ("Let me VERIFY this", "reflection"),
    ("so it's correct", "reflection"),
    ("so it’s incorrect", "reflection"),
    ("that is correct", "execution"),
    ("this seems right", "reflection"),
    ("Alternatively, use 3.", "transition"),
    ("or, alternatively, 3", "execution"),
    ("try another approach", "transition"),
    ("another number", "execution"),
    ("Wait, try another way", "reflection"),
    ("1 + 2 = 3", "execution"),
    ("", "execution"),
  ],
)
def test_kind(thought, kind):
  assert behaviour.kind(thought) == kind, thought


def test_thoughts_are_split_at_blank_lines_only():
  text = "\n\none\ntwo\n \t\nthree\n\n\n\nfour\n\n"
  assert behaviour.thoughts(text) == ["one\ntwo", "three", "four"]
  assert behaviour.thoughts(" \n\n ") == []


def test_counts_are_per_response_and_rates_per_thought():
  texts = [["wait\n\na\n\nb", "a"], ["alternatively\n\nb", ""]]
  found = behaviour.thought_scores(texts)
  value = {name: score[0] for name, score in found.items()}
  assert value["thoughts/reflection"] == 1 / 4
  assert value["thoughts/execution"] == 4 / 4
  assert value["thoughts/transition_rate"] == 1 / 6
  rates = [value[f"thoughts/{kind}_rate"] for kind in behaviour.KINDS]
  np.testing.assert_allclose(sum(rates), 1)


def test_no_thoughts_at_all_is_nan_not_zero():
  found = behaviour.thought_scores([[""], [""]])
  assert found["thoughts/reflection"][0] == 0
  assert np.isnan(found["thoughts/reflection_rate"][0])


def test_the_rule_is_linear_in_hostile_text():
  behaviour.count("\n" * 200_000 + " \n" * 100_000)
  behaviour.count("another " * 100_000)


def test_lengths():
  found = behaviour.length_scores([[1, 3], [5, 7]], [[0, 1], [0, 0]])
  assert found["length/mean"][0] == 4
  assert found["truncated"][0] == 1 / 4
