"""Formulas against scikit-learn and scorio, which do not know of each other."""

import numpy as np
import pytest
import scorio.eval
import sklearn.calibration
import sklearn.metrics

from pxy.measures import bound, calibration, estimate, passk, ranking


@pytest.fixture
def correct_PR():
  rng = np.random.default_rng(0)
  return (rng.random((40, 32)) < rng.beta(0.3, 1, (40, 1))).astype(int)


def value(spec):
  return estimate.measure(spec).value


@pytest.mark.parametrize("k", [1, 3, 8, 32])
def test_pass_at_k_and_its_kin(correct_PR, k):
  ids = [f"{p:02}" for p in range(40)]
  expected = scorio.eval.pass_at_k(correct_PR, k)
  assert value(bound.pass_at(ids, correct_PR, k)) == pytest.approx(expected)
  assert passk.pass_at_k(correct_PR, k)[0] == pytest.approx(expected)
  expected = scorio.eval.pass_hat_k(correct_PR, k)
  assert value(bound.pass_all(ids, correct_PR, k)) == pytest.approx(expected)
  for tau in (0.25, 0.6, 1.0):
    expected = scorio.eval.g_pass_at_k_tau(correct_PR, k, tau)
    assert value(bound.gpass_at(ids, correct_PR, k, tau)) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc(correct_PR, ties):
  rng = np.random.default_rng(1)
  score_PR = correct_PR + rng.normal(0, 2, correct_PR.shape)
  score_PR = score_PR.round() if ties else score_PR
  expected = sklearn.metrics.roc_auc_score(correct_PR.ravel(), score_PR.ravel())
  order, each = ranking.ranked(score_PR, correct_PR), np.ones((1, 40))
  assert ranking.auroc_B(order, each)[0] == pytest.approx(expected)
  weight_P = rng.integers(0, 4, 40)
  weighted = sklearn.metrics.roc_auc_score(
    correct_PR.ravel(), score_PR.ravel(), sample_weight=np.repeat(weight_P, 32)
  )
  found = ranking.auroc_B(order, weight_P[None].astype(float))[0]
  assert found == pytest.approx(weighted)


def test_brier_and_reliability():
  rng = np.random.default_rng(2)
  conf_P1 = rng.random((1000, 1))
  right_P1 = (rng.random((1000, 1)) < conf_P1**2).astype(float)
  one = calibration.given("stated", conf_P1, np.zeros((1000, 1), int))
  ids = [f"{p:04}" for p in range(1000)]
  brier = value(calibration.specs(ids, one, right_P1)[0])
  expected = sklearn.metrics.brier_score_loss(right_P1.ravel(), conf_P1.ravel())
  assert brier == pytest.approx(expected)
  points = calibration.reliability(one, right_P1)
  accuracy, conf = sklearn.calibration.calibration_curve(
    right_P1.ravel(), conf_P1.ravel(), n_bins=calibration.BINS, strategy="quantile"
  )
  assert [point["accuracy"] for point in points] == pytest.approx(accuracy.tolist())
  assert [point["confidence"] for point in points] == pytest.approx(conf.tolist())
