"""Probes in the midst of a run: what they write, and that they change nothing."""

import dataclasses

import pytest

from pxy import config, loop, testing
from pxy.evaluate import glance
from pxy.show import log

import test_loop


@pytest.fixture
def small(monkeypatch):
  """A plan of a few responses."""
  of_tokenizer = glance.plans.of_tokenizer

  def fewer(tokenizer):
    name, plan = of_tokenizer(tokenizer)
    asks = [dataclasses.replace(ask, problems=6, samples=4) for ask in plan.asks]
    same = dataclasses.replace(plan, asks=tuple(asks))
    monkeypatch.setattr(type(same), "smaller", lambda self: self)
    return name, same

  monkeypatch.setattr(glance.plans, "of_tokenizer", fewer)


def probed(record):
  return {name: x for name, x in record.items() if name.startswith("probe/")}


def test_probes_come_when_they_are_due_and_change_nothing(small, tmp_path):
  """A run that was ended and went on, against one that had no probes."""
  plain, out = tmp_path / "plain", tmp_path / "run"
  cfg = dataclasses.replace(test_loop.SMALL, steps=3)
  loop.train(cfg, plain)
  loop.train(dataclasses.replace(cfg, steps=2, probe_every=2), out)
  loop.train(dataclasses.replace(cfg, probe_every=2), out)
  assert test_loop.same(out, plain), "a probe has touched the weights, or the keys"
  records = [(r["step"], "eval" in r, probed(r)) for r in log.metrics(out)]
  held = {(step, of_eval) for step, of_eval, found in records if found}
  assert held == {(1, False), (2, True), (3, False), (3, True)}, (
    "every second step, in the record of the step that began with these weights; and"
    " the last weights"
  )
  found = {(step, of_eval): x for step, of_eval, x in records}
  assert found[2, True] == found[3, False], "the same weights, before and after a stop"
  assert found[1, False] != found[3, True], "weights that differ answer differently"
  one = found[1, False]
  for name in ("bound/pass@1", "calibration/brier", "diversity/answer_entropy"):
    low, value, high = (one[f"probe/{name}{end}"] for end in ("/low", "", "/high"))
    assert low <= value <= high, name
  assert not [name for name in one if "ppl" in name], "contexts take other passes"
  steps = [r for r in log.metrics(out) if "eval" not in r]
  timed = [r["step"] for r in steps if "timing_s/probe" in r]
  assert timed == [1, 3], "the time of a probe stands apart from that of its step"


def test_a_model_of_no_world_is_refused_in_one_line(monkeypatch):
  monkeypatch.setattr(glance.plans, "BASES", {"world": "builtin:world"})
  with pytest.raises(config.Error, match=r"probe_every: .*--task TASK") as error:
    glance.make("m", testing.tokenizer())
  assert "\n" not in str(error.value)
