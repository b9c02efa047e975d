"""What `pxy export` writes, as transformers reads it: ids, chats, greedy text.

Models of every family and the tokenizer that goes with it go through the command line,
as a user would have them: a folder as transformers saves it, `pxy export`, and then
AutoModelForCausalLM and AutoTokenizer on one side and `pxy sample` on the other.
"""

import functools
import json
import pathlib
import sys

import pytest
import torch
import transformers

from pxy import config
from pxy.commands import cli
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import export, hf, load

import chat_worlds

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))

import make_hf

WORLDS = chat_worlds.worlds()
QUESTION = "What is 1 + 2?  Think: don't hurry, é 你好 😀\n"
NEW = 24
OTHERS = {
  "qwen2": "qwen", "qwen2_window": "qwen", "qwen3_window": "qwen", "llama": "llama3",
  "llama_linear": "smollm", "gemma3_local_untied": "gemma", "mistral_window": "llama2",
  "smollm3_yarn": "llama3",
}  # fmt: skip
"""More models, and whose tokenizer they get."""
CASES = {name: world.case for name, world in WORLDS.items()} | {
  f"{world}-{case}": case for case, world in OTHERS.items()
}

pytestmark = pytest.mark.filterwarnings("default")  # of torch and transformers
each = pytest.mark.parametrize("name", CASES)


def published(name: str, folder) -> chat_worlds.World:
  """Writes the model and the tokenizer of a case; its weights are random."""
  world = WORLDS[name.partition("-")[0]]
  chat_worlds.write(folder, world)
  size = tokenizer_lib.load(folder).vocab_size
  case = CASES[name]
  made = make_hf.model(case, vocab_size=size, max_position_embeddings=512)
  made.save_pretrained(folder)
  chat_worlds.write(folder, world)  # transformers has its own generation_config.json
  return world


def exported(model, out, *more) -> pathlib.Path:
  cli.main(["export", str(model), "--out", str(out), *more])
  return out


def theirs(folder, dtype=torch.float32):
  """(model, tokenizer) of a folder, as transformers reads it."""
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=dtype, attn_implementation="eager"
  )
  return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def same_tokenizer(folder, theirs_) -> None:
  """Ids of hard texts, and of chats."""
  ours = tokenizer_lib.load(folder)
  for text in chat_worlds.HARD:
    want = ours.encode(text)
    assert theirs_.encode(text, add_special_tokens=False) == want, text
    # In text from others transformers reads control tokens, unless told not to.
    spelled = text + "".join(ours.controls)
    got = theirs_.encode(spelled, add_special_tokens=False, split_special_tokens=True)
    assert got == ours.encode(spelled), spelled
    assert theirs_.decode(want, skip_special_tokens=True) == ours.decode(want), text
  assert theirs_.get_vocab().keys() >= ours.controls.keys()
  if template.source(ours) is None:
    assert not theirs_.chat_template
    return
  thinks = "enable_thinking" in template.source(ours)
  asked = [(), *([("enable_thinking=false",)] if thinks else [])]
  for chat in [
    *([{"role": "user", "content": text}] for text in chat_worlds.HARD if text),
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1?"}],
  ]:
    for arguments in asked:
      got = theirs_.apply_chat_template(
        chat,
        add_generation_prompt=True,
        return_dict=False,
        **template.variables(arguments),
      )
      assert got == template.render(ours, chat, arguments=arguments), chat


def sampled(folder, capsys, *more) -> dict:
  """The greedy response of `pxy sample`."""
  argv = ["--prompt", QUESTION, "--greedy", "--json", "--max-new-tokens", str(NEW)]
  capsys.readouterr()
  cli.main(["sample", str(folder), *argv, *more])
  return json.loads(capsys.readouterr().out)


def same_text(folder, model, tokenizer, capsys) -> dict:
  """Greedy text, by transformers' generate with no more than the folder's settings."""
  base = not tokenizer.chat_template
  ours = sampled(folder, capsys, *(["--template", "plain"] if base else []))
  if base:
    prompt = tokenizer.encode(QUESTION)
  else:
    prompt = tokenizer.apply_chat_template(
      [{"role": "user", "content": QUESTION}],
      add_generation_prompt=True,
      return_dict=False,
    )
  assert prompt == ours["prompt_ids"]
  with torch.no_grad():
    ids_1T = torch.tensor([prompt])
    drawn = model.generate(
      ids_1T,
      attention_mask=torch.ones_like(ids_1T),
      max_new_tokens=NEW,
      do_sample=False,
    )
  drawn = drawn[0, len(prompt) :].tolist()
  assert drawn == ours["ids"]
  assert tokenizer.decode(drawn, skip_special_tokens=True) == ours["text"]
  return ours


@each
def test_a_model_goes_out(name, tmp_path, capsys):
  world = published(name, tmp_path / "source")
  out = exported(tmp_path / "source", tmp_path / "out", "--dtype", "float32")
  model, tokenizer = theirs(out)
  ours = tokenizer_lib.load(out)
  stops = model.generation_config.eos_token_id
  assert stops == list(ours.stop_ids)
  want = {ours.control(piece) for piece in (*world.stops, world.turn) if piece}
  assert want <= set(stops), "what was said to end a response still does"
  same_tokenizer(out, tokenizer)
  same_text(out, model, tokenizer, capsys)


@pytest.mark.parametrize("name", sorted(WORLDS.keys() - {"llama2"}))
def test_the_tokenizer_is_as_it_was_published(name, tmp_path):
  """Read by the class that the folder names, and by its rules.

  But for a sentencepiece model: where its library puts a space in front of each text,
  LlamaTokenizer of transformers 5 does not if there is one. pxy asks the library.
  """
  published(name, tmp_path)
  same_tokenizer(tmp_path, transformers.AutoTokenizer.from_pretrained(tmp_path))


def test_the_embedded_model_goes_out(tmp_path, capsys):
  """Its tokenizer is a sentencepiece model, and it brings no chat template."""
  out = exported("builtin:tiny", tmp_path / "tiny", "--dtype", "float32")
  model, tokenizer = theirs(out)
  same_tokenizer(out, tokenizer)
  answer = same_text(out, model, tokenizer, capsys)
  assert answer == sampled("builtin:tiny", capsys), "the export is the model"


@pytest.mark.parametrize("name", ["gemma", "qwen"])
def test_shards_are_one_model(name, tmp_path, capsys, monkeypatch):
  published(name, tmp_path / "source")
  small = functools.partial(hf.save, shard_bytes=20_000)
  monkeypatch.setattr(export.hf, "save", small)
  out = exported(tmp_path / "source", tmp_path / "out", "--dtype", "float32")
  assert len(list(out.glob("model-*.safetensors"))) > 2
  same_text(out, *theirs(out), capsys)


def test_half_precision_is_what_transformers_makes_of_it(tmp_path):
  published("qwen", tmp_path / "source")
  out = exported(tmp_path / "source", tmp_path / "out")
  assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
  pair = [theirs(folder, "auto")[0] for folder in (out, tmp_path / "source")]
  assert [model.dtype for model in pair] == [torch.bfloat16, torch.float32]
  want = pair[1].to(torch.bfloat16).state_dict()
  assert all(bool((want[k] == v).all()) for k, v in pair[0].state_dict().items())


def test_a_real_model_goes_out(tmp_path, capsys):
  try:
    load.place("builtin:smollm2-135m")
  except config.Error as error:
    pytest.skip(str(error))
  out = exported("builtin:smollm2-135m", tmp_path / "out", "--dtype", "float32")
  model, tokenizer = theirs(out)
  same_tokenizer(out, tokenizer)
  answer = same_text(out, model, tokenizer, capsys)
  print(answer["text"])
