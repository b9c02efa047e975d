"""Writes gguf.safetensors: what transformers computes for tests/gguf_worlds.py.

    PYTHONPATH=tests .venv-parity/bin/python tests/golden/make_gguf.py

Per case the logits and the tokens that it draws greedily, in float32, with attention in
plain matrices. torch and transformers are needed here, not to compare with the file.
"""

import pathlib
import tempfile

import gguf_worlds
import numpy as np
import safetensors.numpy
import torch
import transformers

from pxy.weights import families

import hf_worlds

HERE = pathlib.Path(__file__).parent


def model(path: pathlib.Path, name: str):
  """transformers' model of a file."""
  case, config = gguf_worlds.CASES[name], None
  if not case.says:
    values = families.write(case.arch)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
  of = {} if config is None else {"config": config}
  return transformers.AutoModelForCausalLM.from_pretrained(
    path.parent,
    gguf_file=path.name,
    dtype=torch.float32,
    attn_implementation="eager",
    **of,
  ).eval()


def outputs(model) -> dict[str, np.ndarray]:
  """logits_TV, and the greedy tokens after the text."""
  ids_T = gguf_worlds.ids()
  with torch.no_grad():
    ids_1T = torch.from_numpy(ids_T.astype(np.int64))[None]
    drawn = model.generate(
      ids_1T,
      attention_mask=torch.ones_like(ids_1T),
      max_new_tokens=hf_worlds.NEW,
      do_sample=False,
      eos_token_id=None,
      pad_token_id=0,
    )
    logits = model(ids_1T).logits[0].numpy()
  return {"logits": logits, "greedy": drawn[0, len(ids_T) :].numpy().astype(np.int32)}


def main() -> None:
  arrays = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in gguf_worlds.CASES:
      path = gguf_worlds.write(pathlib.Path(folder) / f"{name}.gguf", name)
      for key, value in outputs(model(path, name)).items():
        arrays[f"{name}.{key}"] = np.ascontiguousarray(value)
  safetensors.numpy.save_file(arrays, HERE / "gguf.safetensors")


if __name__ == "__main__":
  main()
