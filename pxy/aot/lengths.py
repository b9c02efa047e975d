"""How long the responses of a step are: by three numbers, or as a run has drawn them.

`mean=1500,p95=5000,max=8192` is a log-normal distribution that is cut off at max, where
what is longer ends: its mean and its 95 % point are these. Responses are as alike
within a group as over all. The same word gives the same lengths.
"""

import math
import pathlib
import statistics

import numpy as np
import pyarrow.parquet as pq

from pxy import config
from pxy.show import log

SEED = 18
_NORMAL = statistics.NormalDist()
_P95 = _NORMAL.inv_cdf(0.95)


def of(word: str, prompts: int, responses: int) -> tuple[np.ndarray, np.ndarray | None]:
  """(tokens of each response [P, R], of each prompt [P] if the word says).

  Args:
    word: `mean=1500,p95=5000,max=8192`, also with `,prompt=300`; a run's folder, or its
      completions.parquet: responses of its last step, or as many as there are, and
      prompts of their mean if metrics.jsonl is beside them.

  Raises:
    config.Error: a word that is neither, or numbers that no such distribution has.
  """
  rng = np.random.default_rng(SEED)
  if "=" not in word:
    return _of_run(pathlib.Path(word), prompts, responses, rng)
  given = _numbers(word)
  prompt = given.pop("prompt", None)
  if set(given) != {"mean", "p95", "max"}:
    raise config.Error(
      f"--lengths {word}: expected mean=M,p95=Q,max=L (and prompt=T), or a run's folder"
    )
  mean, p95, most = given["mean"], given["p95"], given["max"]
  if not 0 < mean < p95 <= most:
    raise config.Error(f"--lengths {word}: expected 0 < mean < p95 <= max")
  n = prompts * responses
  places = (np.arange(n) + 0.5) / n
  z = np.array([_NORMAL.inv_cdf(x) for x in places])
  # The wider, the smaller the mean below a fixed 95 % point, until the tail takes over.
  spreads = np.linspace(0.01, _P95, 500)
  means = np.array([_lognormal(z, p95, x, most).mean() for x in spreads])
  if mean < means.min():
    raise config.Error(
      f"--lengths {word}: with that 95 % point the mean is {means.min():.0f} or more"
    )
  spread = float(np.interp(-mean, -means, spreads))
  length_N = np.maximum(1, np.rint(_lognormal(z, p95, spread, most))).astype(int)
  prompt_P = None if prompt is None else np.full(prompts, int(prompt))
  return rng.permutation(length_N).reshape(prompts, responses), prompt_P


def _numbers(word: str) -> dict[str, float]:
  found = {}
  for part in word.split(","):
    name, _, number = part.partition("=")
    try:
      found[name.strip()] = float(number)
    except ValueError:
      found[name.strip()] = math.nan
    if name.strip() in found and not found[name.strip()] >= 1:
      raise config.Error(f"--lengths {word}: {part!r} is no NAME=NUMBER from 1 on")
  return found


def _lognormal(z, p95, spread, most):
  return np.minimum(most, p95 * np.exp(spread * (z - _P95)))


def _of_run(path, prompts, responses, rng) -> tuple[np.ndarray, np.ndarray | None]:
  file = path / "completions.parquet" if path.is_dir() else path
  try:
    table = pq.read_table(file, columns=["step", "tokens"],
                          filters=[("split", "=", "train")])  # fmt: skip
  except (OSError, ValueError, KeyError) as error:
    why = str(error).splitlines()[0][:200]
    raise config.Error(f"--lengths {path}: no run's completions ({why})") from None
  step, tokens = table["step"].to_numpy(), table["tokens"].to_numpy()
  if not len(step):
    raise config.Error(f"--lengths {path}: its run has sampled nothing in training")
  last = tokens[step == step.max()]
  n = prompts * responses
  if len(last) != n:  # of another size: drawn from them
    last = rng.choice(last, n)
  rows = log.metrics(file.parent)
  means = [row.get("prompt_length/mean") for row in rows if row["step"] == step.max()]
  known = [mean for mean in means if mean is not None]
  prompt_P = np.full(prompts, round(known[-1])) if known else None
  return last.astype(int).reshape(prompts, responses), prompt_P
