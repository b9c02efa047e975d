"""Writes hf.safetensors and hf.json: what transformers computes for tests/hf_worlds.py.

    PYTHONPATH=tests .venv-parity/bin/python tests/golden/make_hf.py

Per case: config.json as transformers saves it, the hidden states after each layer, the
logits, and the tokens that it draws greedily. In float32, with attention in plain
matrices. torch and transformers are needed here, and not to compare with the files.
"""

import json
import pathlib

import numpy as np
import safetensors.numpy
import torch
import transformers

import hf_worlds

HERE = pathlib.Path(__file__).parent


def model(name: str, **more):
  """The model of a case, with its weights; `more` replaces values of its config."""
  family, changes = hf_worlds.CASES[name]
  sizes = hf_worlds.SIZES | changes | more
  config = transformers.AutoConfig.for_model(family, **sizes)
  config._attn_implementation = "eager"
  out = transformers.AutoModelForCausalLM.from_config(config).eval().float()
  tied = "lm_head.weight" if config.tie_word_embeddings else None
  values = {
    key: torch.from_numpy(hf_worlds.weight(key, tuple(value.shape)))
    for key, value in out.state_dict().items()
    if key != tied
  }
  out.load_state_dict(values, strict=False)
  return out


def outputs(model, ids_T) -> dict[str, np.ndarray]:
  """hidden_LTD after each layer (the last one behind the norm), logits_TV, greedy."""
  with torch.no_grad():
    ids_1T = torch.from_numpy(ids_T.astype(np.int64))[None]
    got = model(ids_1T, output_hidden_states=True)
    drawn = model.generate(
      ids_1T,
      attention_mask=torch.ones_like(ids_1T),
      max_new_tokens=hf_worlds.NEW,
      do_sample=False,
    )
  return {
    "hidden": torch.stack(got.hidden_states)[1:, 0].numpy(),
    "logits": got.logits[0].numpy(),
    "greedy": drawn[0, len(ids_T) :].numpy().astype(np.int32),
  }


def main() -> None:
  arrays, configs = {}, {}
  for name in hf_worlds.CASES:
    made = model(name)
    configs[name] = json.loads(made.config.to_json_string(use_diff=True))
    for key, value in outputs(made, hf_worlds.ids()).items():
      arrays[f"{name}.{key}"] = np.ascontiguousarray(value)
  safetensors.numpy.save_file(arrays, HERE / "hf.safetensors")
  lines = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(configs.items()))
  (HERE / "hf.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
  main()
