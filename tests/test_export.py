"""A model goes out as a Hugging Face folder, and comes back the same."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece

from pxy import config, testing
from pxy.commands import cli
from pxy.text import template
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import export, hf, load

import chat_worlds

TINY = load.BUILTIN / "tiny"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  out = tmp_path_factory.mktemp("export") / "model"
  export.export("builtin:tiny", out, dtype="float32")
  return out


def test_the_export_of_a_load_is_byte_equal_in_every_tensor(exported):
  once = exported.with_name("again")
  export.export(str(exported), once, dtype="float32")
  a, b = (
    safetensors.numpy.load_file(x / "model.safetensors") for x in (exported, once)
  )
  assert a.keys() == b.keys()
  assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_it_is_the_same_model(exported):
  before, after = load.load("builtin:tiny"), load.load(str(exported))
  assert before.arch == after.arch
  pairs = zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)
  for x, y in pairs:
    np.testing.assert_array_equal(x, y)
  chat = [{"role": "user", "content": "What is 1 + 2? <|im_end|>"}]
  ids = [template.render(p.tokenizer, chat) for p in (before, after)]
  assert ids[0] == ids[1]


def test_it_brings_what_others_need(exported):
  names = {path.name for path in exported.iterdir()}
  assert names >= {
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.model",
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md",
  }  # fmt: skip
  tokenizer = load.load(str(exported)).tokenizer
  generation = json.loads((exported / "generation_config.json").read_text())
  assert generation["eos_token_id"] == list(tokenizer.stop_ids)
  # The template that it was trained with, though its own tokenizer brought none.
  assert (exported / "chat_template.jinja").read_text() == template.CHATML


WORLDS = chat_worlds.worlds()


def published(folder, world):
  """A folder of a small random model and that tokenizer."""
  chat_worlds.write(folder, world)
  arch = testing.arch(vocab_size=tokenizer_lib.load(folder).vocab_size)
  hf.save(folder, arch, testing.params(arch))


@pytest.mark.parametrize("name", WORLDS)
def test_every_kind_of_tokenizer_goes_out_and_comes_back(name, tmp_path):
  world = WORLDS[name]
  published(tmp_path / "in", world)
  export.export(str(tmp_path / "in"), tmp_path / "out")
  settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
  assert settings["tokenizer_class"] == "PreTrainedTokenizerFast", "no rules of a class"
  ours, again = (tokenizer_lib.load(tmp_path / x) for x in ("in", "out"))
  assert isinstance(again, tokenizer_lib.HFTokenizer)
  assert again.stop_ids == ours.stop_ids and again.controls == ours.controls
  assert all(again.control(piece) in again.stop_ids for piece in world.stops)
  for text in chat_worlds.HARD:
    assert again.encode(text) == ours.encode(text), text
  said = (tmp_path / "out" / "README.md").read_text()
  jinja = tmp_path / "out" / "chat_template.jinja"
  if world.turn:
    assert jinja.read_text() == world.settings["chat_template"]
  else:
    assert not jinja.exists() and "A base model: it has no chat template." in said


def test_a_tokenizer_that_cannot_be_tokenizer_json_goes_out_as_it_is(tmp_path):
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(chat_worlds.CORPUS),
    model_writer=model,
    model_type="unigram",
    vocab_size=200,
    hard_vocab_limit=False,
    num_threads=1,
    minloglevel=3,
  )
  settings = {"eos_token": "</s>", "bos_token": "<s>"}
  world = chat_worlds.World("", model.getvalue(), settings, ("</s>",), "")
  published(tmp_path / "in", world)
  export.export(str(tmp_path / "in"), tmp_path / "out")
  assert (tmp_path / "out" / "tokenizer.model").read_bytes() == world.source
  assert not (tmp_path / "out" / "tokenizer.json").exists()
  said = (tmp_path / "out" / "README.md").read_text()
  assert "`tokenizer.model` may split otherwise" in said and "no byte-pair" in said


def test_half_precision_is_rounded_once(tmp_path):
  export.export("builtin:tiny", tmp_path / "half", dtype="bfloat16")
  full, half = (
    load.load("builtin:tiny").params,
    load.load(str(tmp_path / "half")).params,
  )
  for x, y in zip(*map(jax.tree.leaves, (full, half)), strict=True):
    np.testing.assert_array_equal(np.asarray(x, jax.numpy.bfloat16), y)


def test_the_card_tells_of_a_run_and_of_no_folder_of_this_machine(tmp_path):
  run = tmp_path / "secret" / "run"
  shutil.copytree(TINY, run / "model")
  for step in (3, 7):
    (run / "checkpoints" / f"{step:08d}").mkdir(parents=True)
  file = tmp_path / "secret" / "rows.jsonl"
  cfg = {
    "model": str(tmp_path / "secret" / "base"),
    "phases": [{"name": "nsr", "steps": 5}, {"name": "grpo", "steps": None}],
    "data": {"task": f"0.5 * {file} + 0.5 * arithmetic/add3", "system": "</a> / b"},
    "mirror": ["~/secret/place/"],
  }
  (run / "config.json").write_text(json.dumps(cfg))
  score = {"avg@16": {"value": 0.868, "se": 0.012}}
  summary = {"before": None, "after": score, "steps": 7}
  (run / "summary.json").write_text(json.dumps(summary))
  policy = load.load("builtin:tiny")
  text = export.card(str(run), policy, "bfloat16", None)
  assert "Trained from `base` up to step 7, with nsr, then grpo." in text
  assert "| avg@16 | – | 0.868 ± 0.012 |" in text
  assert '"0.5 * rows.jsonl + 0.5 * arithmetic/add3"' in text and "</a> / b" in text
  assert "secret" not in text and str(tmp_path) not in text
  early = export.card(str(run), policy, "bfloat16", 3)
  assert "up to step 3, with nsr." in early and "avg@16" not in early
  # A model that is no run has none; its config.json is another thing.
  assert "Config" not in export.card(str(TINY), policy, "bfloat16", None)


def test_a_model_is_named_from_wherever_it_is_called(tmp_path, monkeypatch):
  (tmp_path / "mine").mkdir()
  monkeypatch.chdir(tmp_path / "mine")
  policy = load.load("builtin:tiny")
  for name in (".", "../mine", str(tmp_path / "mine") + "/"):
    text = export.card(name, policy, "bfloat16", None)
    assert "# mine\n" in text and "from `mine`" in text
  assert "# builtin:tiny\n" in export.card("builtin:tiny", policy, "bfloat16", None)


def test_numbers_beyond_the_type_are_refused(tmp_path):
  chat_worlds.write(tmp_path / "in", WORLDS["qwen"])
  arch = testing.arch(vocab_size=tokenizer_lib.load(tmp_path / "in").vocab_size)
  params = testing.params(arch)
  params["norm"]["scale"][3] = 70_000
  hf.save(tmp_path / "in", arch, params)
  with pytest.raises(
    config.Error, match=r"norm\.weight has 7e\+04, which is beyond it"
  ):
    export.export(str(tmp_path / "in"), tmp_path / "out", dtype="float16")
  assert not (tmp_path / "out").exists()
  export.export(str(tmp_path / "in"), tmp_path / "out", dtype="bfloat16")


def test_what_is_there_is_not_written_over_and_nothing_half_is_left(
  exported, tmp_path, monkeypatch, capsys
):
  with pytest.raises(config.Error, match="there already"):
    export.export("builtin:tiny", exported)
  with pytest.raises(SystemExit):
    cli.main(["export", "builtin:tiny", "--out", str(exported), "--dtype", "int8"])
  assert "invalid choice 'int8'" in capsys.readouterr().err
  real = export.hf.load

  def other(folder, put):
    def changed(path, value):
      if path == ("embed",) and folder.name.startswith(".out."):
        value = value + np.float32(1e-3)
      return put(path, value)

    return real(folder, changed)

  monkeypatch.setattr(export.hf, "load", other)
  with pytest.raises(config.Error, match="embed reads back as other numbers"):
    export.export(str(exported), tmp_path / "out")
  assert not list(tmp_path.iterdir())
