"""Drawing and grading: each response meets its own grade, flat groups make room."""

import concurrent.futures
import dataclasses

import jax
import numpy as np
import pytest

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.rewards import pool as pool_lib
from pxy.sampling import collect
from pxy.sampling import engine as engine_lib


def prompt(uid):
  return prompts_lib.Prompt(
    np.array([uid], np.int32), f"q{uid}", str(uid), "task", uid, {}
  )


class Backwards:
  """An engine whose responses end in reverse order; ids are (uid, r)."""

  def run(self, params, prompts, n, *, key, uids, first, version, on_finish, stop):
    def sample(p, r):
      ids = np.array([prompts[p][0], r], np.int32)
      return engine_lib.Sample(ids, np.zeros(2, np.float32), "stop", version)

    self.uids = uids
    samples = [[sample(p, r) for r in range(n)] for p in range(len(prompts))]
    for p in reversed(range(len(prompts))):
      for r in reversed(range(n)):
        on_finish(p, r, samples[p][r])
    return samples


class Grader:
  """A pool that scores r, and fails where it is 2."""

  def submit(self, item, group, place):
    future = concurrent.futures.Future()
    status = "failed" if item.ids[1] == 2 else "scored"
    score = float("nan") if status == "failed" else float(item.ids[1])
    assert item.answer == str(item.ids[0]), "graded against its own prompt's answer"
    future.set_result(pool_lib.Outcome(status, score, "broken", 0.0, {}))
    return future


class Words:
  def decode(self, ids):
    return " ".join(map(str, ids))


def drawn(uids, n=3):
  engine, seen = Backwards(), []
  batch = collect.collect(
    collect.Collector(engine, Grader(), Words(), on_answer=seen.append),
    None,
    [prompt(uid) for uid in uids],
    n,
    key=jax.random.key(0),
    version=7,
  )
  return batch, engine, seen


def test_every_response_has_its_own_grade_whatever_the_order_of_ending():
  batch, _, seen = drawn([5, 9])
  assert [[a.text for a in g] for g in batch.answers] == [
    ["5 0", "5 1", "5 2"],
    ["9 0", "9 1", "9 2"],
  ]
  np.testing.assert_array_equal(batch.scores_PR, [[0, 1, np.nan]] * 2)
  assert batch.valid_PR.tolist() == [[True, True, False]] * 2
  assert seen == [1, 2, 3, 4, 5, 6]
  assert {a.sample.version for g in batch.answers for a in g} == {7}


def test_a_prompt_that_stands_often_has_a_key_of_its_own_at_each_place():
  _, engine, _ = drawn([3] * 200 + [4, 3], n=1)
  assert engine.uids[0] == 3 and engine.uids[200] == 4
  assert len(set(np.asarray(engine.uids).astype(np.uint32).tolist())) == 202


def test_stale_rollouts_are_refused():
  batch, *_ = drawn([5, 9])
  collect.refuse_stale(batch, 7)
  with pytest.raises(config.Error, match="version 7 for an update of version 8"):
    collect.refuse_stale(batch, 8)
  mixed = collect.Graded([*batch.answers, *_of_version(batch, 6)])
  with pytest.raises(config.Error, match="version 6, 7 for an update of version 7"):
    collect.refuse_stale(mixed, 7)


def test_graded_responses_give_lengths_texts_and_rollouts():
  batch, *_ = drawn([5, 9])
  assert batch.length_PR.tolist() == [[2] * 3] * 2
  assert not batch.truncated_PR.any()
  assert batch.texts[1] == ["9 0", "9 1", "9 2"]
  rollouts = batch.rollouts()
  assert rollouts.group_size == 3
  np.testing.assert_array_equal(rollouts.prompt_BS[:, 0], [5, 5, 5, 9, 9, 9])
  np.testing.assert_array_equal(rollouts.response_BT[:, 1], [0, 1, 2] * 2)


def _of_version(batch, version):
  def one(answer):
    sample = dataclasses.replace(answer.sample, version=version)
    return dataclasses.replace(answer, sample=sample)

  return [[one(answer) for answer in group] for group in batch.answers]


def test_too_many_failures_stop_the_run_and_say_why():
  batch, *_ = drawn([5, 9])
  collect.refuse_failures(batch, 0.34)
  with pytest.raises(config.Error, match=r"2 of 6 .* broken"):
    collect.refuse_failures(batch, 0.33)


def graded(uids, scores):
  def answer(uid, score):
    status = "failed" if np.isnan(score) else "scored"
    outcome = pool_lib.Outcome(status, score, "", 0.0, {})
    return collect.Answer(prompt(uid), None, "", outcome)

  answers = [
    [answer(u, s) for s in group] for u, group in zip(uids, scores, strict=True)
  ]
  return collect.Graded(answers)


def test_refilling_replaces_flat_groups_only_and_is_bounded():
  nan = float("nan")
  table = {0: [1, 0], 1: [1, 1], 2: [0, nan], 3: [nan, nan], 10: [0, 0], 11: [0, 1]}
  table |= {12: [1, 1], 20: [0, 0], 21: [1, 0]}
  asked = []

  def draw(prompts, number):
    uids = [p.uid for p in prompts]
    asked.append((number, uids))
    return graded(uids, [table[u] for u in uids])

  rounds = [[prompt(u) for u in uids] for uids in ([0, 1, 2, 3], [10, 11, 12, 13],
                                                   [20, 21, 22, 23])]  # fmt: skip
  batch = collect.refilled(draw, rounds)
  assert asked == [(0, [0, 1, 2, 3]), (1, [10, 11, 12]), (2, [20, 21])]
  assert [g[0].prompt.uid for g in batch.answers] == [0, 20, 11, 21]
  assert collect.refilled(draw, rounds[:1]).answers[1][0].prompt.uid == 1
