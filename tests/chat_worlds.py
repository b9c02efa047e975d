"""Small tokenizers with chat templates, each built like that of a family of models.

What text is split by, and how a turn ends, is the family's; the vocabulary is learned
from a few lines, and the templates are short ones of our own. `write` makes a folder as
it would be published: tokenizer, its settings, and what ends a response.
"""

import dataclasses
import io
import json

import sentencepiece
import tokenizers
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

CORPUS = [
  "def f(x):\n    return x + 1  # don't, I'LL\n\n\nclass A(B):\n\tpass\r\n",
  "The number 12345 and 1 + 23 = 24. It's 7,000.50 % of 2024-01-31!",
  "你好，世界。今天天气很好。 こんにちは世界 안녕하세요 세계",
  "😀👍🏽👩‍👩‍👧‍👦 naïve café Ünïcödé Ωμέγα Привет мир مرحبا שלום",
  "      six  spaces\t\ttabs   \n \n  mixed \u00a0nbsp \u3000wide",
  "user assistant model system What is the sum of two numbers? Think first.",
] * 3

HARD = [
  "", " ", "  ", " a", "a ", "\n", "\n\n\n", " \n \n", "\r\n\t x", "a  b   c    d",
  "0", "00123", "1234567.50", "3½ ² Ⅷ ٣", "don't I'LL we've 'S",
  "def f(x):\n        return x**2  # \\boxed{\\frac{1}{2}}\n",
  "你好，世界 こんにちは 안녕", "😀👍🏽👩‍👩‍👧‍👦🇩🇪",
  "e\u0301 é ﬁ ａ \u00a0\u3000\u200b|",
  "\x00\x01\x7f\ufffd\ue000", "▁▁ a▁b", "<0x41> [INST] <think>x</think> ##",
  "z" * 70, *CORPUS[:6],
]  # fmt: skip
"""Texts that tokenizers disagree on, none with a control token spelled in it."""

_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_QWEN = """
{%- for m in messages %}
  {{- '<|im_start|>' + m.role + '\n' }}
  {%- if m.role == 'assistant' %}{{- m.content.split('</think>')[-1] }}
  {%- else %}{{- m.content }}{% endif %}
  {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\n\n</think>\n\n' }}
  {%- endif %}
{%- endif %}
"""
_LLAMA3 = """
{{- bos_token }}
{%- if tools is not none %}{{- raise_exception('no tools') }}{% endif %}
{%- for m in messages %}
  {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
  {{- m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
_GEMMA = """
{{- bos_token }}
{%- for m in messages if m.role != 'system' %}
  {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}
  {%- if loop.first and messages[0].role == 'system' %}
    {{- messages[0].content + '\n\n' }}
  {%- endif %}
  {{- m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{% endif %}
"""
_LLAMA2 = """
{%- for m in messages %}
  {%- if m.role == 'assistant' %}{{- ' ' + m.content + ' ' + eos_token }}
  {%- else %}{{- bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}
{%- endfor %}
"""


@dataclasses.dataclass(frozen=True)
class World:
  """A tokenizer as it is published.

  Attributes:
    case: the model of hf_worlds that goes with it.
    source: tokenizer.json, or the bytes of tokenizer.model.
    settings: tokenizer_config.json.
    stops: the tokens that generation_config.json says end a response.
    turn: the token that ends a turn of the chat; empty for a base model.
  """

  case: str
  source: str | bytes
  settings: dict
  stops: tuple[str, ...]
  turn: str


def write(folder, world: World) -> None:
  """Writes the tokenizer's files to a folder, and generation_config.json."""
  folder.mkdir(exist_ok=True)
  if isinstance(world.source, bytes):
    (folder / "tokenizer.model").write_bytes(world.source)
    processor = sentencepiece.SentencePieceProcessor(model_proto=world.source)
    ids = [processor.piece_to_id(piece) for piece in world.stops]
  else:
    (folder / "tokenizer.json").write_text(world.source)
    hf = tokenizers.Tokenizer.from_str(world.source)
    ids = [hf.token_to_id(piece) for piece in world.stops]
  (folder / "tokenizer_config.json").write_text(json.dumps(world.settings))
  (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))


def worlds() -> dict[str, World]:
  """All of them, by name."""
  return {
    "qwen": _qwen(), "llama3": _llama3(), "gemma": _gemma(), "llama2": _llama2(),
    "smollm": _smollm(), "base": _base(),
  }  # fmt: skip


def _byte_level(controls, first=None, normalizer=None, **of) -> tokenizers.Tokenizer:
  hf = tokenizers.Tokenizer(models.BPE(**of))
  words = isinstance(first, pre_tokenizers.Split)
  last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
  hf.pre_tokenizer = pre_tokenizers.Sequence([first, last]) if first else last
  if normalizer:
    hf.normalizer = normalizer
  hf.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  hf.train_from_iterator(CORPUS, trainer)
  hf.add_special_tokens(
    [tokenizers.AddedToken(p, special=True, normalized=False) for p in controls]
  )
  return hf


def _isolated(digits: str):
  return pre_tokenizers.Split(tokenizers.Regex(_WORDS % digits), behavior="isolated")


def _qwen() -> World:
  controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  hf = _byte_level(controls, _isolated(""), normalizers.NFC())
  hf.add_tokens(["<think>", "</think>"])
  settings = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_bos_token": False,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "chat_template": _QWEN,
  }
  stops = ("<|im_end|>", "<|endoftext|>")
  return World("qwen3", hf.to_str(), settings, stops, "<|im_end|>")


def _llama3() -> World:
  bos = "<|begin_of_text|>"
  controls = [bos, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
  controls += ["<|eot_id|>", "<|eom_id|>"]
  hf = _byte_level(controls, _isolated("{1,3}"), ignore_merges=True)
  hf.post_processor = processors.TemplateProcessing(
    single=[bos, "$A"], special_tokens=[(bos, hf.token_to_id(bos))]
  )
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": bos,
    "eos_token": "<|end_of_text|>",
    "chat_template": _LLAMA3,
  }
  stops = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
  return World("llama_llama3", hf.to_str(), settings, stops, "<|eot_id|>")


def _smollm() -> World:
  controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
  hf = _byte_level(controls, pre_tokenizers.Digits(individual_digits=True))
  settings = {
    "tokenizer_class": "GPT2Tokenizer",
    "add_prefix_space": False,
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "chat_template": _QWEN,
  }
  return World("smollm2", hf.to_str(), settings, ("<|im_end|>",), "<|im_end|>")


def _base() -> World:
  """A base model: it has one control token, and no chats."""
  hf = _byte_level(["<|endoftext|>"])
  settings = {"eos_token": "<|endoftext|>"}
  return World("llama_tied", hf.to_str(), settings, ("<|endoftext|>",), "")


def _gemma() -> World:
  controls = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
  byte = [f"<0x{i:02X}>" for i in range(256)]
  hf = tokenizers.Tokenizer(
    models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
  )
  hf.normalizer = normalizers.Replace(" ", "▁")
  hf.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  hf.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  trainer = trainers.BpeTrainer(
    vocab_size=600,
    show_progress=False,
    limit_alphabet=90,
    special_tokens=[*controls, *byte],
  )
  hf.train_from_iterator(CORPUS, trainer)
  source = json.loads(hf.to_str())
  source["added_tokens"] = source["added_tokens"][: len(controls)]
  hf = tokenizers.Tokenizer.from_str(json.dumps(source))
  hf.add_tokens(
    [tokenizers.AddedToken(p, special=False, normalized=False) for p in ("\n\n", "▁▁")]
  )
  bos = "<bos>"
  hf.post_processor = processors.TemplateProcessing(
    single=[bos, "$A"], special_tokens=[(bos, hf.token_to_id(bos))]
  )
  settings = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": bos,
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "chat_template": _GEMMA,
  }
  stops = ("<eos>", "<end_of_turn>")
  return World("gemma3", hf.to_str(), settings, stops, "<end_of_turn>")


def _llama2() -> World:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(line for text in CORPUS for line in text.splitlines()),
    model_writer=model,
    model_type="bpe",
    vocab_size=520,
    hard_vocab_limit=False,
    byte_fallback=True,
    character_coverage=0.98,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    num_threads=1,
    minloglevel=3,
  )
  settings = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "chat_template": _LLAMA2,
  }
  return World("llama", model.getvalue(), settings, ("</s>",), "</s>")
