"""`pxy sample`: text as it is drawn, and chats from files."""

import io
import json

import jax
import numpy as np
import pytest

from pxy import config, testing
from pxy.commands import cli, sample
from pxy.sampling import engine
from pxy.text import tokenizer as tokenizer_lib
from pxy.weights import hf

import chat_worlds


def test_a_stream_writes_whole_characters_and_misses_none():
  tokenizer, text = testing.tokenizer(), "a é 你好 🎉!"
  ids = np.array(tokenizer.encode(text), np.int32)
  for size in (1, 2, 3, 50):
    file = io.StringIO()
    seen = []
    stream = sample.Stream(tokenizer, file)
    for i in range(0, len(ids), size):
      stream(0, 0, ids[i : i + size])
      seen.append(file.getvalue())
    stream.end()
    assert file.getvalue() == text + "\n"
    assert all(text.startswith(part) for part in seen), "half a character was written"


def test_what_is_drawn_is_told_piece_by_piece():
  arch, told = testing.arch(), {}

  def on_draw(p, r, ids):
    told.setdefault((p, r), []).extend(ids.tolist())

  sampling = config.Sampling(max_new_tokens=70, slots=2)
  prompts = [np.array([5, 6], np.int32), np.array([7], np.int32)]
  with engine.Engine(
    arch, sampling=sampling, stop_ids=(3,), max_prompt_tokens=4
  ) as engine_:
    key = jax.random.key(0)
    found = engine_.run(testing.params(arch), prompts, 3, key=key, on_draw=on_draw)
  for p, group in enumerate(found):
    for r, one in enumerate(group):
      assert told[p, r] == one.ids.tolist()


def run(capsys, *argv):
  cli.main(["sample", "builtin:tiny", "--max-new-tokens", "8", *map(str, argv)])
  return capsys.readouterr().out


def test_chats_come_from_files(capsys, tmp_path):
  chat = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "What is 347 + 285?"},
  ]
  whole, wrapped = tmp_path / "a.json", tmp_path / "b.json"
  whole.write_text(json.dumps(chat))
  wrapped.write_text(json.dumps({"messages": chat}))
  lines = tmp_path / "c.jsonl"
  lines.write_text(json.dumps({"messages": chat}) + '\n{"prompt": "What is 1 + 2?"}\n')
  by = [json.loads(run(capsys, "--messages", f, "--json")) for f in (whole, wrapped)]
  assert by[0] == by[1]
  shown = run(capsys, "--messages", lines, "--n", "2", "--json").splitlines()
  assert len(shown) == 4
  assert json.loads(shown[0])["prompt_ids"] == by[0]["prompt_ids"]
  assert "--- 2, 1 ---" in run(capsys, "--messages", lines, "--n", "2")


@pytest.mark.parametrize(
  "content, words",
  [
    ("[]", "expected text or a list of messages"),
    ('[{"role": "user"}]', "content"),
    ('[{"role": "assistant", "content": "x"}]', "end the prompt where"),
    ("{", "Expecting"),
    ('[{"role": "user", "content": "a", "content": "b"}]', "key 'content': twice"),
    ("[" * 9000, "--messages"),
  ],
)
def test_chats_that_cannot_be_used_are_one_line(content, words, tmp_path, capsys):
  file = tmp_path / "chat.json"
  file.write_text(content)
  with pytest.raises(SystemExit) as stop:
    cli.main(["sample", "builtin:tiny", "--messages", str(file)])
  said = capsys.readouterr().err
  assert stop.value.code == 2 and words in said and said.count("\n") == 1


def test_files_that_are_no_chats_are_one_line(tmp_path, capsys):
  (tmp_path / "chat.txt").write_text("hello")
  for file, words in {
    "none.json": "none.json: no such file",
    "none.jsonl": "none.jsonl: no such file",
    ".": "no such file",
    "chat.txt": "expected a .json file with one chat",
  }.items():
    with pytest.raises(SystemExit):
      cli.main(["sample", "builtin:tiny", "--messages", str(tmp_path / file)])
    said = capsys.readouterr().err
    assert said.startswith("pxy: --messages ") and words in said, said
    assert said.count("\n") == 1


def test_a_base_model_continues_text_and_refuses_chats_in_one_line(tmp_path, capsys):
  chat_worlds.write(tmp_path, chat_worlds.worlds()["base"])
  arch = testing.arch(vocab_size=tokenizer_lib.load(tmp_path).vocab_size)
  hf.save(tmp_path, arch, testing.params(arch))
  argv = ["sample", str(tmp_path), "--prompt", "What is", "--max-new-tokens", "4"]
  with pytest.raises(SystemExit):
    cli.main(argv)
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "no chat template" in said
  assert "--template plain" in said
  cli.main([*argv, "--template", "plain", "--json"])
  out, err = capsys.readouterr()
  assert len(json.loads(out)["ids"]) == 4 and not err


def test_one_of_prompt_and_messages(capsys):
  for argv in ([], ["--prompt", "x", "--messages", "y.json"]):
    with pytest.raises(SystemExit):
      cli.main(["sample", "builtin:tiny", *argv])
    assert "give either --prompt TEXT or --messages FILE" in capsys.readouterr().err
