"""hf://org/name[@revision]: a folder of the Hugging Face Hub, on this machine.

Only data is fetched, by name: config, safetensors, tokenizer, chat template. Whatever
else stands in a repository (pickles, Python) stays there. `huggingface_hub` keeps the
files under HF_HOME and goes on without a network with those it has; HF_ENDPOINT and
HF_TOKEN mean what they mean to it.
"""

import functools
import pathlib
import re

from pxy import config

SCHEME = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", re.ASCII)
FILES = (
  "config.json", "generation_config.json", "model*.safetensors",
  "model.safetensors.index.json", "tokenizer.json", "tokenizer.model",
  "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip


@functools.cache
def folder(model: str) -> pathlib.Path:
  """The folder MODEL is in, fetched if it is not there; asks once in a process.

  Raises config.Error where it cannot be had: what is wrong, and the cure.
  """
  match = _NAME.fullmatch(model)
  if match is None:
    raise config.Error(f"model {model!r}: expected hf://org/name or hf://org/name@rev")
  import huggingface_hub  # Half a second that other models need not wait for
  from huggingface_hub import errors

  name, revision = match.groups()
  try:
    there = huggingface_hub.snapshot_download(
      name, revision=revision, allow_patterns=list(FILES)
    )
  except errors.GatedRepoError:
    cure = "accept its licence on its page, and set HF_TOKEN"
  except errors.RevisionNotFoundError:
    cure = "the model has no such revision"
  except errors.RepositoryNotFoundError:
    cure = "the Hub has no such model, or it is private: then set HF_TOKEN"
  except errors.HFValidationError:
    cure = "this is no name of a model"
  except (OSError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
    why = " ".join(str(error).split())[:200]
    cure = f"the Hub cannot be reached, and the files are not here ({why})"
  else:
    return pathlib.Path(there)
  raise config.Error(f"model {model!r}: {cure}")
