"""Learning rates: by hand, against optax, and as pre-training has always had them."""

import dataclasses
import math

import numpy as np
import optax
import pytest

from pxy import config
from pxy.commands import experiment, plan
from pxy.train import rate

RISE = [0.25, 0.5, 0.75, 1.0]


def rates(steps, run=None, **how):
  """Of a run that is one phase, from its first step to two beyond its last."""
  cfg = config.Train(phases=(config.Phase(lr=0.5, **how),), steps=run or steps)
  return [rate.at(cfg, step) for step in range(steps + 2)]


@pytest.mark.parametrize(
  "how, shares",
  [
    ({}, [1.0] * 8),
    ({"warmup": 4}, RISE + [1.0] * 4),
    ({"warmup": 1}, [1.0] * 8),
    ({"schedule": "linear"}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0]),
    ({"schedule": "linear", "lr_end": 0.4}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4]),
    ({"schedule": "linear", "warmup": 4}, [*RISE, 1, 0.5, 0, 0]),
    (
      {"schedule": "cosine"},
      [0.5 + 0.5 * math.cos(math.pi * min(s, 6) / 6) for s in range(8)],
    ),
    (
      {"schedule": "cosine", "warmup": 4, "lr_end": 0.1},
      [*RISE, 1, 0.55, 0.1, 0.1],
    ),
  ],
)
def test_rates_by_hand(how, shares):
  np.testing.assert_allclose(
    rates(6, **how), [0.5 * x for x in shares], rtol=1e-14, atol=1e-17
  )


def test_a_rate_that_does_not_move_is_the_number_that_was_given():
  cfg = config.Train(phases=(config.Phase(lr=2e-4),))
  assert [rate.at(cfg, step) for step in (0, 7, 2**31 - 1)] == [2e-4] * 3


def test_against_optax_own_warm_up_and_cosine():
  how = config.Phase(lr=3e-4, schedule="cosine", warmup=10, lr_end=0.2)
  theirs = optax.warmup_cosine_decay_schedule(3e-5, 3e-4, 9, 49, 0.2 * 3e-4)
  ours = [rate.of(how, step, 50) for step in range(10)]
  np.testing.assert_allclose(ours, [theirs(s) for s in range(10)], rtol=1e-6)
  theirs = optax.cosine_decay_schedule(3e-4, 40, 0.2)
  ours = [rate.of(how, step, 50) for step in range(10, 50)]
  np.testing.assert_allclose(ours, [theirs(s) for s in range(40)], rtol=1e-6)


@pytest.mark.parametrize("name", ["base", "world_base"])
def test_a_shipped_model_is_made_with_the_rates_that_it_was_made_with(name):
  cfg = experiment.load(name, config.Pretrain)
  some = [*range(0, cfg.warmup + 2, 7), *range(cfg.warmup, cfg.steps, 41)]
  for step in some:
    done = (step - cfg.warmup) / (cfg.steps - cfg.warmup)
    was = cfg.lr * float(0.55 + 0.45 * np.cos(np.pi * done))
    if step < cfg.warmup:
      was = cfg.lr * (step + 1) / cfg.warmup
    found = np.float32(rate.of(cfg, step, cfg.steps))
    assert found == np.float32(was), f"step {step}: the update would get another rate"


def test_each_phase_has_its_own_schedule_and_begins_it_anew():
  cfg = config.Train(
    steps=9,
    phases=(
      config.Phase("a", steps=3, lr=1.0, schedule="linear"),
      config.Phase("b", steps=2, lr=2.0, warmup=2),
      config.Phase("c", lr=4.0, schedule="linear"),
    ),
  )
  found = [rate.at(cfg, step) for step in range(9)]
  np.testing.assert_allclose(found, [1, 2 / 3, 1 / 3, 1, 2, 4, 3, 2, 1], rtol=1e-14)
  assert [config.span(cfg, i) for i in range(3)] == [(0, 3), (3, 5), (5, 9)]
  longer = dataclasses.replace(cfg, steps=50)
  assert [rate.at(longer, step) for step in range(5)] == found[:5]
  shown = plan.of_train(cfg)["phases"]
  assert "a 1-3 at lr 1, linear to 0, b 4-5 at lr 2 after a warm-up of 2" in shown


@pytest.mark.parametrize(
  "phases, fits",
  [
    ([config.Phase(warmup=10)], True),
    ([config.Phase(warmup=9, schedule="cosine")], True),
    ([config.Phase(warmup=100)], True),
    ([config.Phase(warmup=10, schedule="cosine")], False),
    ([config.Phase(warmup=11, steps=10)], False),
    ([config.Phase(steps=10), config.Phase(warmup=99, schedule="linear")], True),
  ],
)
def test_a_warm_up_fits_into_its_phase(phases, fits):
  cfg = config.Train(phases=tuple(phases), steps=10)
  if fits:
    return config.check(cfg)
  with pytest.raises(config.Error, match=r"phases\.0\.warmup 1[01]: the phase has 10"):
    config.check(cfg)
