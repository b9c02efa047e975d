"""Gemma 3 270M from its GGUF file, through pxy and through transformers.

`make gemma3` fetches the file. It is a base model: it goes on with texts.
"""

import jax
import numpy as np
import parity_smollm2
import pytest
import torch
import transformers

from pxy import config
from pxy.model import decoder
from pxy.sampling import engine as engine_lib
from pxy.weights import load

MODEL = "builtin:gemma3-270m"
PROMPTS = [
  "The capital of France is",
  "Question: What is the capital of Japan?\nAnswer:",
  "One, two, three, four,",
  "Water boils at a temperature of",
]
NEW = 16

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def ours():
  try:
    return load.load(MODEL)
  except config.Error as error:
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def theirs(ours):
  """(model in float32, tokenizer) as transformers reads the file."""
  path = ours.folder
  of = {"gguf_file": path.name, "local_files_only": True}
  model = transformers.AutoModelForCausalLM.from_pretrained(
    path.parent, dtype=torch.float32, attn_implementation="eager", **of
  )
  return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, **of)


def test_logits_of_real_text(ours, theirs):
  """And ids, of lines without spaces before them: of 33 spaces transformers 5.24 makes
  16 and others, sentencepiece its longest pieces, of 31 and 2, as pxy does."""
  model, tokenizer = theirs
  for text in parity_smollm2.TEXTS:
    text = "\n".join(line.strip() for line in text.splitlines())
    ids = [*ours.tokenizer.prefix_ids, *ours.tokenizer.encode(text)]
    assert tokenizer.encode(text) == ids, text
    ids_1T = np.asarray(ids, np.int32)[None]
    place_1T = np.arange(ids_1T.size, dtype=np.int32)[None]
    hidden_1TD = decoder.forward(
      ours.arch, ours.params, ids_1T, place_1T, np.ones_like(ids_1T)
    )
    got = np.asarray(decoder.logits(ours.arch, ours.params, hidden_1TD))
    with torch.no_grad():
      want = model(torch.from_numpy(ids_1T.astype(np.int64))).logits.numpy()
    worst = np.abs(got - want).max()
    print(f"{ids_1T.size} tokens, largest {np.abs(want).max():.1f}: max {worst:.2g}")
    assert np.array_equal(got.argmax(-1), want.argmax(-1))
    assert worst < 5e-4, "float32 twice"


def test_greedy_texts(ours, theirs):
  model, tokenizer = theirs
  prompts = [tokenizer.encode(text) for text in PROMPTS]
  with engine_lib.Engine(
    ours.arch,
    sampling=config.Sampling(max_new_tokens=NEW, slots=len(prompts)),
    stop_ids=ours.tokenizer.stop_ids,
    max_prompt_tokens=max(map(len, prompts)),
  ) as engine:
    answers = engine.run(
      ours.params,
      [np.asarray(ids, np.int32) for ids in prompts],
      1,
      key=jax.random.key(0),
      greedy=True,
    )
  for text, ids, [answer] in zip(PROMPTS, prompts, answers, strict=True):
    with torch.no_grad():
      out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=list(ours.tokenizer.stop_ids),
        pad_token_id=ours.tokenizer.pad_id,
      )
    want = out[0, len(ids) :].tolist()
    print(f"{text} -> {ours.tokenizer.decode(want)!r}")
    assert answer.ids.tolist() == want, text
