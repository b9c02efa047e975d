"""Files that are whole or not there: written beside, synced, renamed into place."""

import json
import os
import pathlib
import tempfile

from pxy import fields


def cache() -> pathlib.Path:
  """$PXY_CACHE, or ~/.cache/pxy: for what can be made again. Makes nothing."""
  return pathlib.Path(os.environ.get("PXY_CACHE") or "~/.cache/pxy").expanduser()


def writable(path: pathlib.Path, name: str) -> None:
  """Refuses a file that could not be written, before the work it is to hold is done.

  Makes nothing. Raises fields.Error that begins with `name`.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise fields.Error(f"{name}: a folder is in the way; name a file")
  above = next(p for p in path.absolute().parents if p.exists())
  if not above.is_dir():
    raise fields.Error(f"{name}: {above} is a file; name another place")
  try:
    tempfile.TemporaryFile(dir=above).close()
  except OSError as error:
    raise fields.Error(
      f"{name}: {above} cannot be written ({error.strerror}); name another place"
    ) from None


def size(folder: pathlib.Path) -> int:
  """Bytes of all files below a folder."""
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes `text` to `path` atomically."""
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes `data` to `path` atomically."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def write_json(path: pathlib.Path, value) -> None:
  """Writes `value` as indented JSON to `path` atomically."""
  write_text(path, json_text(value))


def json_text(value) -> str:
  """`value` as indented JSON."""
  return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
