"""Any TFDS builder as rows, by name: `tfds:gsm8k`, `tfds:NAME/CONFIG:VERSION?OPTIONS`.

Options: `prompt` and `answer` name the features that hold them, where they are not
called so already (rows.py knows the usual names), and `data_dir` is where the files
are or are to be; without it TFDS's own rule holds ($TFDS_DATA_DIR, or
~/tensorflow_datasets).

Without TensorFlow: files are array_record, read through `as_data_source`. Files that
were prepared as TFRecord, its default, are refused with the cure. A builder whose files
are missing is prepared, which takes a network.
"""

import contextlib
import importlib
import io
import pathlib
import re

import tensorflow_datasets as tfds

from pxy import config
from pxy.data import rows

PREFIX = "tfds:"
_TASK = re.compile(
  r"(?P<name>[a-z0-9_]+)(?:/[\w.-]+)*(?::(?:\d+|\*)(?:\.(?:\d+|\*)){2})?", re.ASCII
)
_FIELDS = ("prompt", "answer")
_READABLE = ("array_record", "parquet")


def read(task: str, split: str, need_answer: bool) -> list[tuple[int, rows.Row]]:
  """(number, row) of a split; config.Error that says what is missing or wrong."""
  builder, text, options = _open(task)
  if split not in builder.info.splits:
    known = ", ".join(builder.info.splits)
    raise config.Error(f"{task}: no split {split!r}; there are {known}")
  try:
    source = builder.as_data_source(split=split)
  except Exception as error:
    raise config.Error(f"{task}: cannot be read ({_line(error)})") from None
  name = f"{PREFIX}{text}"
  found = []
  for uid, example in enumerate(source.__getitems__(list(range(len(source))))):
    try:
      found.append((uid, _row(example, options, name, split, need_answer)))
    except config.Error as error:
      raise config.Error(f"{task}, {split} example {uid}: {error}") from None
  return found


def splits(task: str) -> tuple[str, ...]:
  """The splits that the builder has."""
  return tuple(_open(task)[0].info.splits)


def _open(task: str):
  """(builder, NAME/CONFIG:VERSION, features by field)."""
  text, _, given = task.removeprefix(PREFIX).partition("?")
  options = _options(task, given)
  match = _TASK.fullmatch(text)
  if match is None:
    raise config.Error(f"{task}: expected tfds:NAME, tfds:NAME/CONFIG or with :VERSION")
  return (
    _builder(task, text, match["name"], options.pop("data_dir", None)),
    text,
    options,
  )


def _options(task: str, text: str) -> dict[str, str]:
  options = {}
  for part in text.split(",") if text else []:
    key, equals, value = part.partition("=")
    if not equals or not value or key not in (*_FIELDS, "data_dir"):
      raise config.Error(
        f"{task}: {part!r} is no option; write prompt=FEATURE, answer=FEATURE or"
        " data_dir=FOLDER, with commas between them"
      )
    options[key] = value
  return options


def _builder(task: str, text: str, name: str, data_dir: str | None):
  """The builder with its files in place."""
  _register(name)
  folder = {} if data_dir is None else {"data_dir": pathlib.Path(data_dir).expanduser()}
  try:
    builder = tfds.builder(text, try_gcs=False, **folder)
  except Exception as error:
    raise config.Error(f"{task}: no such builder ({_line(error)})") from None
  if builder.is_prepared():
    kind = builder.info.file_format.value
    if kind not in _READABLE:
      raise config.Error(
        f"{task}: the files in {builder.data_dir} are {kind}, which takes TensorFlow;"
        f" convert them with `python -m tensorflow_datasets.scripts.convert_format"
        " --out_file_format=array_record`, or name another data_dir"
      )
    return builder
  try:
    builder = tfds.builder(text, try_gcs=False, file_format="array_record", **folder)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it talks; stdout may be JSON
      builder.download_and_prepare()
  except Exception as error:
    raise config.Error(
      f"{task}: its files are not in {builder.data_dir}, and cannot be made"
      f" ({_line(error)}); prepare them where there is a network, and name data_dir"
    ) from None
  return builder


def _register(name: str) -> None:
  """Imports a builder that TFDS has and lists only where TensorFlow is installed."""
  root = pathlib.Path(tfds.__file__).parent
  for path in root.glob(f"*/{name}/{name}.py"):
    area = path.parts[-3]
    with contextlib.suppress(ImportError):
      importlib.import_module(f"tensorflow_datasets.{area}.{name}.{name}")


def _row(example: dict, options: dict, task: str, split: str, need: bool) -> rows.Row:
  values = {key: _plain(value) for key, value in example.items()}
  chosen = {}
  for field, feature in options.items():
    if feature not in values:
      raise config.Error(
        f"no feature {feature!r} for {field}; there are {', '.join(values)}"
      )
    chosen[field] = values[feature]
  if "answer" in chosen:  # it is the reference, whatever else there is
    values = {key: value for key, value in values.items() if key != "reward_model"}
  return rows.of_values(
    values | chosen | {"data_source": task, "split": split}, task, need
  )


def _plain(value):
  """An example's value as JSON has it: text for bytes, lists for arrays."""
  if isinstance(value, bytes):
    try:
      return value.decode("utf-8")
    except UnicodeDecodeError:
      return None  # no text, thus nothing that a prompt or a grader needs
  if isinstance(value, dict):
    return {key: _plain(part) for key, part in value.items()}
  if hasattr(value, "tolist"):
    value = value.tolist()
  return [_plain(part) for part in value] if isinstance(value, list) else value


def _line(error: Exception) -> str:
  text = " ".join(str(error).split())
  return f"{type(error).__name__}: {text[:120]}"
