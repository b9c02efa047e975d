"""google-tunix at a benchmark size: a process that does one part each time it is told.

Reads the size as JSON from its first line, then names of parts; answers each with its
seconds. It runs in the environment of benchmarks/peers.txt, where there is no pxy.

What is measured is what Tunix's own GRPO does: its Sampler on all responses at once
(its learner repeats the prompt for each response), and the compiled train step of its
trainer with its GRPO loss on the same number of tokens, without a KL term.
"""

import json
import sys
import time

import jax
import numpy as np
import optax
from flax import nnx
from tunix.generate import sampler as sampler_lib
from tunix.models.qwen3 import model as model_lib
from tunix.rl import algo_core, common
from tunix.rl.grpo import grpo_learner
from tunix.sft import peft_trainer


class Tokenizer:
  """Texts are numbers with spaces between; no id ends a response."""

  def __init__(self, vocab_size: int):
    self._beyond = vocab_size

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids) -> str:
    return " ".join(map(str, ids))

  def bos_id(self) -> int:
    return 0  # none is put in front

  def eos_id(self) -> int:
    return self._beyond

  def pad_id(self) -> int:
    return 0


class Job:
  """The parts of a step."""

  def __init__(self, size: dict):
    arch = size["arch"]
    self.size, self.tokenizer = size, Tokenizer(arch["vocab_size"])
    cfg = model_lib.ModelConfig(
      num_layers=arch["layers"],
      vocab_size=arch["vocab_size"],
      embed_dim=arch["d_model"],
      hidden_dim=arch["d_ff"],
      num_heads=arch["heads"],
      head_dim=arch["head_dim"],
      num_kv_heads=arch["kv_heads"],
      rope_theta=int(arch["rope_theta"]),
      norm_eps=arch["norm_eps"],
      use_tied_embedding=arch["tied"],
    )
    self.model = model_lib.Qwen3(cfg, rngs=nnx.Rngs(0))
    leaves = jax.tree.leaves(nnx.state(self.model, nnx.Param))
    self.parameters = sum(leaf.size for leaf in leaves)
    rng = np.random.default_rng(0)
    shape = size["prompts"], size["prompt"]
    prompts = rng.integers(1, arch["vocab_size"], shape, np.int32)
    self.prompts = prompts.repeat(size["responses"], 0)  # as its learner does
    self.texts = [self.tokenizer.decode(ids) for ids in self.prompts]
    self.sampler = sampler_lib.Sampler(
      self.model,
      self.tokenizer,
      sampler_lib.CacheConfig(
        cache_size=size["prompt"] + size["completion"],
        num_layers=cfg.num_layers,
        num_kv_heads=cfg.num_kv_heads,
        head_dim=cfg.head_dim,
      ),
    )
    how = grpo_learner.GRPOConfig(num_generations=size["responses"], beta=0.0)
    how.temperature = 1.0
    self.trainer = peft_trainer.PeftTrainer(
      self.model,
      optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-4)),
      peft_trainer.TrainingConfig(eval_every_n_steps=10**9),
    )

    def loss(model, train_example, algo_config):
      return algo_core.grpo_loss_fn(
        model,
        train_example,
        algo_config=how,
        pad_id=self.tokenizer.pad_id(),
        eos_id=self.tokenizer.eos_id(),
      )

    self.trainer.with_loss_fn(loss, has_aux=True)
    self.trainer.with_gen_model_input_fn(
      lambda example: {"train_example": example, "algo_config": how}
    )
    self.train, _ = self.trainer.jit_train_and_eval_step(cache_nnx_graph=True)
    self.calls = 0
    completion = np.maximum(self.sampling(), 1)
    count = len(completion)
    adv = np.where(np.arange(count) % 2, 1.0, -1.0).astype(np.float32)
    self.example = common.TrainExample(
      prompt_ids=jax.numpy.asarray(self.prompts),
      prompt_mask=jax.numpy.ones(self.prompts.shape, bool),
      completion_ids=jax.numpy.asarray(completion),
      completion_mask=jax.numpy.ones(completion.shape, bool),
      advantages=jax.numpy.asarray(adv),
      ref_per_token_logps=None,
      old_per_token_logps=None,
    )

  def sampling(self) -> np.ndarray:
    self.calls += 1
    out = self.sampler(
      self.texts,
      max_generation_steps=self.size["completion"],
      max_prompt_length=self.size["prompt"],
      temperature=1.0,
      top_p=1.0,
      seed=self.calls,
      return_logprobs=True,
    )
    return np.stack([np.asarray(ids) for ids in out.tokens])

  def update(self):
    out = self.train(self.example)
    jax.block_until_ready((out, nnx.state(self.model)))
    return float(out[0])


def main() -> None:
  """Answers on standard output; what libraries print there goes to standard error."""
  answers, sys.stdout = sys.stdout, sys.stderr
  job = Job(json.loads(sys.stdin.readline()))
  shape = job.sampling().shape
  print(json.dumps({"parameters": job.parameters, "shape": shape}), file=answers)
  answers.flush()
  for line in sys.stdin:
    start = time.perf_counter()
    getattr(job, line.strip())()
    print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
  main()
