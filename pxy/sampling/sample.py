"""`pxy sample`: responses to one prompt, with the sampler of training."""

import json

import jax
import numpy as np

from pxy import config
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.weights import load


def command(options) -> None:
  """Prints `n` responses, as text or one JSON object each."""
  if options.n < 1:
    raise config.Error(f"--n {options.n}: must be >= 1")
  sampling = config.Sampling(
    temperature=options.temperature,
    top_k=options.top_k,
    top_p=options.top_p,
    max_new_tokens=options.max_new_tokens,
    slots=min(options.n, config.Sampling().slots),
  )
  config.check(config.Train(sampling=sampling, seed=options.seed))
  policy = load.load(options.model, options.step)
  messages = [{"role": "user", "content": options.prompt}]
  ids = template.render(policy.tokenizer, messages, options.template, options.system)
  _fits(len(ids), options.max_new_tokens, policy.arch.context)
  with engine_lib.Engine(
    policy.arch,
    sampling=sampling,
    stop_ids=policy.tokenizer.stop_ids,
    max_prompt_tokens=len(ids),
  ) as engine:
    [samples] = engine.run(
      policy.params,
      [np.asarray(ids, np.int32)],
      options.n,
      key=jax.random.key(options.seed),
      greedy=options.greedy,
    )
  for i, sample in enumerate(samples):
    text = policy.tokenizer.decode(sample.ids.tolist())
    if options.json:
      record = {
        "prompt_ids": list(map(int, ids)),
        "ids": sample.ids.tolist(),
        "text": text,
        "logps": [float(x) for x in sample.logp],
        "stop": sample.stop,
      }
      print(json.dumps(record, ensure_ascii=False))
    else:
      print(text if options.n == 1 else f"--- {i + 1} ---\n{text}")


def _fits(prompt: int, new: int, context: int) -> None:
  if prompt == 0:
    raise config.Error("--prompt: it is empty; with --template plain, give some text")
  if prompt >= context:
    raise config.Error(
      f"--prompt: it has {prompt} tokens, and the model's context is {context}: shorten"
      " it"
    )
  if prompt + new > context:
    raise config.Error(
      f"--max-new-tokens {new}: the prompt takes {prompt} of the model's {context}"
      f" tokens; give at most {context - prompt}"
    )
