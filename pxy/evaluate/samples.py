"""Fills a store: draws what it lacks, grades it, and takes its log-probs.

    for each chunk of problems: draw responses have .. R, grade, score, keep

A chunk counts as a whole or not at all, so a call that was killed goes on at the chunk
it was in, and one that asks for more draws the difference.
"""

import dataclasses
import hashlib
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import jax
import numpy as np

from pxy import config
from pxy.data import prompts as prompts_lib
from pxy.evaluate import likelihood as likelihood_lib
from pxy.evaluate import store
from pxy.rewards import given
from pxy.sampling import collect
from pxy.show import progress

WAVES = 4
"""Responses of a chunk, in slots of the sampler: its last ones leave slots idle."""
_AWAY = 0.381966
"""How far on in the task the other prompt is: no neighbour, and no even part of it."""
_FAR = 1000


def of_model(policy) -> dict[str, str]:
  """Digests of a model's weights (all bytes are read) and of its tokenizer."""
  return {
    "weights": weights_digest(policy.params),
    "tokenizer": tokenizer_digest(policy.tokenizer),
  }


def identity(
  model: dict[str, str],
  data: config.Data,
  split: str,
  limits: config.Sampling,
  seed: int,
) -> dict:
  """What a store is of: all that the responses and their grades depend on.

  Args:
    model: of_model.
    limits: of the sampling.
  """
  named = {"columns": data.columns} if data.columns else {}
  return (
    model
    | named
    | {
      "task": data.task,
      "split": split,
      "grader": data.grader if not data.rewards else list(data.rewards),
      "template": data.template,
      "system": data.system,
      "template_arguments": list(data.template_arguments),
      "max_prompt_tokens": data.max_prompt_tokens,
      "sampling": {
        "temperature": float(limits.temperature),
        "top_p": float(limits.top_p),
        "top_k": limits.top_k,
        "max_new_tokens": limits.max_new_tokens,
      },
      "seed": seed,
    }
  )


def weights_digest(params) -> str:
  """Of names, shapes and bytes of a tree of arrays."""
  found = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(params):
    leaf = np.asarray(jax.device_get(leaf))
    name = jax.tree_util.keystr(path)
    found.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
    found.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return found.hexdigest()[:16]


def tokenizer_digest(tokenizer) -> str:
  """Of the files that it is saved as."""
  found = hashlib.sha256()
  with tempfile.TemporaryDirectory() as folder:
    tokenizer.save(folder)
    for path in sorted(pathlib.Path(folder).iterdir()):
      found.update(path.name.encode() + b"\n" + path.read_bytes())
  return found.hexdigest()[:16]


def others(
  prompts: Sequence[prompts_lib.Prompt],
) -> list[prompts_lib.Prompt | None]:
  """For each problem of a task the one whose prompt is its `other` context: a rotation,
  which passes over those that ask the same, as variants of a `group` do.

  None where none of the next thousand asks anything else.
  """
  size = len(prompts)
  away = max(1, round(_AWAY * size))

  def same(a, b):
    group = a.columns.get("group")
    return a.ids.tobytes() == b.ids.tobytes() or (
      group is not None and group == b.columns.get("group")
    )

  def other(i):
    on = (prompts[(i + away + n) % size] for n in range(min(size, _FAR)))
    return next((found for found in on if not same(prompts[i], found)), None)

  return [other(i) for i in range(size)]


def fill(
  collector: collect.Collector,
  likelihood: likelihood_lib.Likelihood,
  policy,
  source: prompts_lib.Source,
  writer: store.Writer,
  problems: int,
  samples: int,
  *,
  seed: int,
  contexts: Sequence[str],
  step: int | None = None,
) -> store.Stored:
  """Makes a store hold `samples` responses to the first `problems` of a task, and what
  it holds already.

  Args:
    policy: load.Policy that the store is of.
    writer: of the store, entered.
    contexts: under which log p is taken, besides `prompt`; of likelihood.NAMES.
    step: of the checkpoint, to be noted.

  Raises:
    config.Error: the store is of other problems, or no problem has another.
    interrupt.Stopped: an end was asked for.
  """
  held = (writer.about or {}).get("contexts", ()) if writer.size[0] else ()
  contexts = likelihood_lib.names(",".join([*contexts, *held]))
  asked = problems, samples
  problems, samples = map(max, asked, writer.size)
  prompts = source.first(problems)
  uids = [prompt.uid for prompt in source.prompts]
  ids = dict(zip(uids, store.ids(source.prompts), strict=True))
  other = dict(zip(uids, others(source.prompts), strict=True))
  rows = [
    store.problem(p, place, ids[p.uid], ids[other[p.uid].uid] if other[p.uid] else None)
    for place, p in enumerate(prompts)
  ]
  if likelihood_lib.OTHER in contexts and any(row["other"] is None for row in rows):
    raise config.Error(
      f"--contexts other: {len(source.prompts)} problem(s) of {rows[0]['task']} have no"
      " other prompt; leave it out, or name a task with more"
    )
  fixed = likelihood_lib.fixed(policy.tokenizer, contexts)
  writer.begin(policy.name, step, rows, samples=samples, contexts=contexts)

  def ids_of(prompt, name):
    if name == "prompt":
      return prompt.ids.tolist()
    if name == likelihood_lib.OTHER:
      return other[prompt.uid].ids.tolist()
    return fixed[name]

  def scored(found):
    """Adds the log-probs that (prompt, row) lack."""
    lack = [
      (prompt, row, name)
      for prompt, row in found
      for name in contexts
      if name not in row["logp"]
    ]
    wanted = [
      (ids_of(prompt, name), row["r"], np.array(row["ids"], np.int32))
      for prompt, row, name in lack
    ]
    with display.count("score", len(wanted)) as told:
      sums = likelihood(policy.params, wanted, told)
    for (_, row, name), (logp, entropy) in zip(lack, sums, strict=True):
      row["logp"][name] = logp
      if name == "prompt":
        row["entropy"] = entropy
    return [row for _, row in found]

  def have(prompt):
    return next(
      (r for r in range(samples) if (ids[prompt.uid], r) not in writer.rows), samples
    )

  def draw(chunk, first, done):
    graded = collect.collect(
      dataclasses.replace(collector, on_answer=lambda n: count(done + n)),
      policy.params,
      chunk,
      samples - first,
      key=jax.random.key(seed),
      first=first,
    )
    return [
      (answer.prompt, row(answer, ids[answer.prompt.uid], r, seed, collector))
      for answers in graded.answers
      for r, answer in enumerate(answers, first)
    ]

  if collector.pool.together and any(0 < have(prompt) < samples for prompt in prompts):
    raise config.Error(
      f"--save: {', '.join(sorted(collector.pool.together))} sees all responses to a"
      " problem at once, so more cannot be added to those that are kept; name another"
      " folder"
    )
  done = sum(map(have, prompts))
  if done < len(prompts) * samples and (problems, samples) != asked:
    print(
      f"pxy: {writer.name} holds {' x '.join(map(str, writer.size))} responses, and"
      f" grows to {len(prompts)} x {samples}: as many to each problem",
      file=sys.stderr,
    )
  total = len(prompts) * samples
  with progress.Display() as display, display.count("evaluate", total) as count:
    for first, group in itertools.groupby(prompts, have):
      chunks = _chunks(list(group), samples - first, collector.engine)
      for chunk in chunks if first < samples else ():
        writer.add(scored(draw(chunk, first, done)))
        done += len(chunk) * (samples - first)
    for chunk in _chunks(prompts, samples, collector.engine):
      found = [(p, writer.rows[ids[p.uid], r]) for p in chunk for r in range(samples)]
      lack = [
        (p, row | {"logp": dict(row["logp"])})
        for p, row in found
        if not row["logp"].keys() >= set(contexts)
      ]
      if lack:
        writer.add(scored(lack))
  return writer.finish()


def _chunks(prompts, samples: int, engine):
  size = max(1, WAVES * engine.sampling.slots // max(1, samples))
  return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def row(answer: collect.Answer, problem: str, r: int, seed: int, collector) -> dict:
  """The row of a response, but for its log-probs."""
  prompt, outcome = answer.prompt, answer.outcome
  known = outcome.status == "scored"
  return {
    "problem": problem,
    "r": r,
    "seed": seed,
    "ids": answer.sample.ids.tolist(),
    "text": answer.text,
    "stop": answer.sample.stop,
    "status": outcome.status,
    "score": outcome.score if known else None,
    "why": outcome.why,
    "metrics": outcome.metrics,
    "extracted": given.of(
      collector.pool.grader, prompt.task, answer.heard, prompt.answer, outcome
    ),
    "entropy": None,
    "logp": {},
  }
