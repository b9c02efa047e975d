"""SmolLM2-135M-Instruct from its GGUF file, through pxy and through transformers.

`make smollm2` fetches the file. This needs torch and transformers as well, which are in
no environment of `make test`; `make parity` makes one with them.
"""

import pathlib

import jax
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from pxy import config
from pxy.model import decoder
from pxy.sampling import engine as engine_lib
from pxy.text import template
from pxy.weights import load

torch = pytest.importorskip("torch", reason="no torch: run `make parity`")
transformers = pytest.importorskip(
  "transformers", reason="no transformers: run `make parity`"
)

MODEL = "builtin:smollm2-135m"
ROOT = pathlib.Path(__file__).parents[2]
TEXTS = [
  "\n".join((ROOT / "LICENSE").read_text().splitlines()[:40]),
  (ROOT / "pxy" / "loop.py").read_text()[:1500],
  "La Tour Eiffel mesure 330 mètres. 東京は日本の首都です。 😀 12345 + 678 = 13023.",
]
PROMPTS = [
  "What is the capital of France?",
  "What is 47 + 38?",
  "Write a haiku about the sea.",
  "Name three animals that live in the desert.",
  "Explain in one sentence why the sky is blue.",
]
NEW = 48

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
  model, _ = theirs
  params = jax.device_put(ours.params)
  for text in TEXTS:
    ids = np.asarray(ours.tokenizer.encode(text), np.int32)[None]
    place = np.arange(ids.size, dtype=np.int32)[None]
    hidden = decoder.forward(ours.arch, params, ids, place, np.ones_like(ids))
    got = np.asarray(decoder.logits(ours.arch, params, hidden))
    with torch.no_grad():
      want = model(torch.from_numpy(ids.astype(np.int64))).logits.numpy()
    worst = np.abs(got - want).max()
    print(f"{ids.size} tokens, largest logit {np.abs(want).max():.1f}: max {worst:.2g}")
    assert np.array_equal(got.argmax(-1), want.argmax(-1))
    assert worst < 5e-4, "float32 twice: 1.5e-4 was measured, of logits up to 41"


def test_greedy_answers(ours, theirs):
  model, tokenizer = theirs
  prompts = [
    template.render(ours.tokenizer, [{"role": "user", "content": text}])
    for text in PROMPTS
  ]
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
    chat = tokenizer.apply_chat_template(
      [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert chat == ids, "the prompt as transformers writes it"
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
    print(f"{text} {ours.tokenizer.decode(want)!r}")
    assert answer.ids.tolist() == want, text


def test_ids_of_texts(ours, theirs):
  """transformers 5.24 reads the vocabulary of `smollm` files, but splits like GPT-2.

  Spaces before a digit then merge with what is before them. The model's own
  tokenizer.json takes digits one by one first; given that, the ids are equal.
  """
  _, tokenizer = theirs
  tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  hard = "  two  spaces\t\n\n 00123 ½ ² Ⅷ\u00a0 don't I'LL 👩‍👩‍👧 é e\u0301  \n  1. x"
  for text in [*TEXTS, *PROMPTS, hard]:
    want = tokenizer.encode(text, add_special_tokens=False)
    assert ours.tokenizer.encode(text) == want, text
