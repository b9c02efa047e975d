"""Problems of an embedded world as a TFDS builder, whose files are made once.

Files are array_record, read through `as_data_source`: no TensorFlow. They lie in
`$PXY_CACHE`, or ~/.cache/pxy, under the table's name, the config's and the version.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from pxy import config as config_lib
from pxy import files


@dataclasses.dataclass(frozen=True)
class Table:
  """What a world's problems are.

  Attributes:
    name: in CamelCase; the folder's is in snake_case.
    version: names the files: raise it when `generate` yields anything else.
    description: a line.
    record: a dataclass of str, int and bool fields.
    splits: names.
    generate: (config, split) -> records, in the order that is kept.
  """

  name: str
  version: str
  description: str
  record: type
  splits: tuple[str, ...]
  generate: Callable[[str, str], Iterator]


@functools.cache
def _kind(table: Table, config: str):
  """The builder's class, of this config alone: of some tables there are any number."""
  import tensorflow_datasets as tfds  # a second, and what reads rows may need none

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = tfds.core.naming.camelcase_to_snakecase(table.name)
    VERSION = tfds.core.Version(table.version)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)]

    def _info(self):
      text = tfds.features.Text()
      fields = dataclasses.fields(table.record)
      kinds = {f.name: text if f.type is str else np.int64 for f in fields}
      return tfds.core.DatasetInfo(
        builder=self,
        description=table.description,
        features=tfds.features.FeaturesDict(kinds),
        disable_shuffling=True,  # `generate` has shuffled
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in table.splits}

    def _generate_examples(self, split):
      for i, record in enumerate(table.generate(config, split)):
        yield i, dataclasses.asdict(record)

  tfds.disable_progress_bar()

  return functools.partial(Builder, config=config, file_format="array_record")


def builder(table: Table, config: str):
  """The config's builder with its files in place.

  Takes a second the first time. Processes that start together each make the files, and
  the first to rename its folder into place wins. Raises config.Error where the cache
  cannot be written.
  """
  root = files.cache()
  try:
    root.mkdir(parents=True, exist_ok=True)
    ready = _kind(table, config)(data_dir=root)
    target = pathlib.Path(ready.data_path)
    if target.is_dir():
      return ready
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as temporary:
      making = _kind(table, config)(data_dir=temporary)
      with contextlib.redirect_stdout(io.StringIO()):  # it talks; stdout may be JSON
        making.download_and_prepare()
      target.parent.mkdir(parents=True, exist_ok=True)
      try:
        os.rename(making.data_path, target)
      except OSError:
        if not target.is_dir():
          raise
  except OSError as error:
    raise config_lib.Error(
      f"cannot keep data in {root} ({error.strerror}):"
      " set PXY_CACHE to a folder that can be written"
    ) from None
  return _kind(table, config)(data_dir=root)


def read(table: Table, config: str, split: str) -> tuple:
  """All records of a split, read from the config's files."""
  return _read(os.fspath(builder(table, config).data_path), table, config, split)


@functools.lru_cache(maxsize=8)
def _read(path: str, table: Table, config: str, split: str) -> tuple:
  """A split's files at `path`; kept in memory, since evaluations come back to them."""
  source = builder(table, config).as_data_source(split=split)
  fields = dataclasses.fields(table.record)
  out = []
  for row in source.__getitems__(list(range(len(source)))):
    values = ((field.type, row[field.name]) for field in fields)
    out.append(
      table.record(*(x.decode() if kind is str else kind(x) for kind, x in values))
    )
  return tuple(out)
