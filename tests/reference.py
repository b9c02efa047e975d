"""A float64 numpy oracle: loops and definitions, no cleverness, nothing from pxy.

Written from the definitions (softmax, the estimators' papers), so that a mistake would
have to be made twice. Sequences are rows; a mask says which tokens count.
"""

import itertools
import math

import numpy as np


def logits(hidden_BTD, head_DV, temperature=1.0, softcap=None):
  z_BTV = np.asarray(hidden_BTD, np.float64) @ np.asarray(head_DV, np.float64)
  if softcap:
    z_BTV = softcap * np.tanh(z_BTV / softcap)
  return z_BTV / temperature


def truncate(z_V, top_k=0, top_p=1.0):
  """Which ids top-k, then top-p, keep; those equal to the last one too."""
  z_V = np.asarray(z_V, np.float64)
  kept_V = np.ones(len(z_V), bool)
  if 0 < top_k < len(z_V):
    kept_V = z_V >= np.sort(z_V)[::-1][top_k - 1]
  if top_p < 1:
    p_V = np.where(kept_V, np.exp(z_V - z_V.max()), 0)
    p_V /= p_V.sum()
    mass = 0.0
    for v in np.argsort(-z_V, kind="stable"):
      mass += p_V[v]
      if mass >= top_p:
        break
    kept_V = kept_V & (z_V >= z_V[v])
  return kept_V


def distribution(z_V, kept_V=None):
  """Probabilities of the kept ids."""
  e_V = np.exp(z_V - z_V.max())
  if kept_V is not None:
    e_V = np.where(kept_V, e_V, 0)
  return e_V / e_V.sum()


def logprob(
  hidden_BTD, head_DV, targets_BT, temperature=1.0, softcap=None, floor_BT=None
):
  """Log-probs of the targets and entropies; a target is always inside the floor."""
  z_BTV = logits(hidden_BTD, head_DV, temperature, softcap)
  logp_BT, entropy_BT = np.zeros(z_BTV.shape[:2]), np.zeros(z_BTV.shape[:2])
  for b, t in np.ndindex(logp_BT.shape):
    kept_V = np.ones(z_BTV.shape[2], bool)
    if floor_BT is not None:
      kept_V = z_BTV[b, t] >= floor_BT[b, t]
      kept_V[targets_BT[b, t]] = True
    p_V = distribution(z_BTV[b, t], kept_V)
    logp_BT[b, t] = np.log(p_V[targets_BT[b, t]])
    entropy_BT[b, t] = -sum(p * np.log(p) for p in p_V if p > 0)
  return logp_BT, entropy_BT


def passed(right, k):
  """pass@k of the samples: the share of the groups of k with a right one."""
  groups = list(itertools.combinations(right, k))
  return sum(any(group) for group in groups) / len(groups)


def advantages(kind, rewards_PR, valid_PR, lam=0.1, k=4):
  adv_PR = np.zeros(np.shape(rewards_PR))
  flat = zip(np.ravel(rewards_PR), np.ravel(valid_PR), strict=True)
  everything = [float(r) for r, ok in flat if ok]
  for p, r in np.ndindex(adv_PR.shape):
    if not valid_PR[p][r]:
      continue
    mine = float(rewards_PR[p][r])
    group = [float(x) for x, ok in zip(rewards_PR[p], valid_PR[p], strict=True) if ok]
    if kind == "reinforce":
      adv_PR[p, r] = mine
    elif kind == "sign":
      adv_PR[p, r] = 1 if mine > 0 else -1
    elif kind == "w-reinforce":
      adv_PR[p, r] = lam * mine if mine > 0 else mine - 1
    elif kind == "maxrl":
      share = sum(x > 0 for x in group) / len(group)
      if share:
        adv_PR[p, r] = ((mine > 0) - share) / share
    elif kind == "pass-at-k":
      right = [x > 0 for x in group]
      if len(group) < k or passed(right, k) in (0, 1):
        continue
      b, others = passed(right, k), list(right)
      others.remove(mine > 0)
      with_mine = 1.0
      if not mine > 0:
        with_mine = passed(others, k - 1) if k > 1 else 0.0
      adv_PR[p, r] = (with_mine - b) / math.sqrt(b * (1 - b))
    else:
      if kind == "batch":
        group = everything
      if len(set(group)) < 2:
        continue  # no contrast
      n, mean = len(group), math.fsum(group) / len(group)
      if kind == "mean":
        adv_PR[p, r] = mine - mean
      elif kind == "asymmetric":
        adv_PR[p, r] = (lam if mine > mean else 1) * (mine - mean)
      elif kind == "rloo":
        adv_PR[p, r] = mine - (math.fsum(group) - mine) / (n - 1)
      elif kind in ("grpo", "batch"):
        variance = math.fsum((x - mean) ** 2 for x in group) / (n - 1)
        adv_PR[p, r] = (mine - mean) / (math.sqrt(variance) + 1e-6)
      else:
        raise KeyError(kind)
  return adv_PR


def surrogate(
  kind, logp_BT, old_BT, adv_BT, mask_BT, low=0.2, high=0.2, dual=None, segments_BT=None
):
  """The loss of every token (0 outside the mask), before weights."""
  shape = np.shape(logp_BT)
  if segments_BT is None:
    segments_BT = np.ones(shape, int)
  loss_BT = np.zeros(shape)
  for b, t in np.ndindex(shape):
    if not mask_BT[b][t]:
      continue
    adv, logp = float(adv_BT[b][t]), float(logp_BT[b][t])
    difference = min(20.0, max(-20.0, logp - float(old_BT[b][t])))
    if kind == "gspo":
      peers = [
        min(20.0, max(-20.0, float(logp_BT[b][u]) - float(old_BT[b][u])))
        for u in range(shape[1])
        if mask_BT[b][u] and segments_BT[b][u] == segments_BT[b][t]
      ]
      difference = sum(peers) / len(peers)
    ratio = math.exp(difference)
    limited = min(1 + high, max(1 - low, ratio))
    if kind == "none":
      loss = -logp * adv
    elif kind == "cispo":
      loss = -limited * adv * logp
    elif kind in ("ppo", "gspo"):
      objective = min(ratio * adv, limited * adv)
      if kind == "ppo" and dual is not None and adv < 0:
        objective = max(objective, dual * adv)
      loss = -objective
    else:
      raise KeyError(kind)
    loss_BT[b, t] = loss
  return loss_BT


def reduce(how, loss_BT, mask_BT, constant=1.0):
  """The four means over the tokens of the mask, literally."""
  rows = [loss[m] for loss, m in zip(loss_BT, np.asarray(mask_BT, bool), strict=True)]
  rows = [row for row in rows if len(row)]
  if how == "token-mean":
    return np.concatenate(rows).mean()
  if how == "seq-mean-token-mean":
    return np.mean([row.mean() for row in rows])
  if how == "seq-mean-token-sum":
    return np.mean([row.sum() for row in rows])
  if how == "constant":
    return np.mean([row.sum() / constant for row in rows])
  raise KeyError(how)


def kl(kind, logp, ref):
  d = logp - ref
  above = math.exp(min(-d, 20.0)) * (1 + max(0.0, -d - 20.0))  # exp, then its tangent
  return {"k1": d, "k2": d * d / 2, "k3": above - 1 + d}[kind]


def importance(kind, logp_BT, sampler_BT, mask_BT, cap, floor=0.5):
  level, _, masked = kind.partition("-")
  weights_BT = np.ones(np.shape(logp_BT))
  for b, t in np.ndindex(weights_BT.shape):
    if mask_BT[b][t]:
      tokens = [t] if level == "token" else np.flatnonzero(mask_BT[b])
      exponent = sum(float(logp_BT[b][u]) - float(sampler_BT[b][u]) for u in tokens)
      ratio = math.exp(min(20.0, max(-20.0, exponent)))
      inside = floor <= ratio <= cap
      weights_BT[b, t] = (ratio if inside else 0.0) if masked else min(cap, ratio)
  return weights_BT


def difference(function, x, epsilon=1e-6):
  """Central finite differences of a scalar function of a float64 array."""
  gradient = np.zeros_like(x)
  for i in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[i] += epsilon
    down[i] -= epsilon
    gradient[i] = (function(up) - function(down)) / (2 * epsilon)
  return gradient
