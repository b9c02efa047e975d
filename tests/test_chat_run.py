"""A run on a model with a chat template of its own: what is said before it starts."""

import pytest

from pxy import config, loop, testing
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import hf

import chat_worlds
import worlds


def model(folder, world):
  """A folder as models are published, with small random weights."""
  chat_worlds.write(folder, world)
  arch = testing.arch(vocab_size=tokenizer_lib.load(folder).vocab_size, context=128)
  hf.save(folder, arch, testing.params(arch))
  return str(folder)


def cfg(model, **data):
  """Evaluates once, and takes no step."""
  return config.Train(
    model=model,
    steps=0,
    data=config.Data(
      task=worlds.SUMS, prompts=1, responses=2, max_prompt_tokens=64, **data
    ),
    sampling=config.Sampling(max_new_tokens=4, slots=2),
    eval=config.Eval(problems=1, samples=2),
    mesh=config.Mesh(data=1, fsdp=1, tensor=1),
  )


def test_the_first_prompt_is_shown_to_the_letter(tmp_path, capfd):
  name = model(tmp_path / "qwen", chat_worlds.worlds()["qwen"])
  arguments = ("enable_thinking=false",)
  loop.train(cfg(name, template_arguments=arguments), tmp_path / "run")
  out, err = capfd.readouterr()
  said = " ".join((out + err).split())
  assert r"first prompt: '<|im_start|>user\n" in said
  assert r"<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'" in said
  assert "responses end at <|im_end|>, <|endoftext|>" in said
  assert "warning: the chat template" not in said


def test_a_template_that_ends_turns_otherwise_stops_the_run(tmp_path):
  world = chat_worlds.worlds()["llama3"]
  text = world.settings["chat_template"].replace("<|eot_id|>", "<|start_header_id|>")
  world.settings["chat_template"] = text
  name = model(tmp_path / "llama3", world)
  with pytest.raises(config.Error, match=r"turn with <.start_header_id.>, but resp"):
    loop.train(cfg(name), tmp_path / "run")
  assert not (tmp_path / "run" / "model").exists()
