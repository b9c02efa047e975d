"""Manifest of a folder: size and SHA-256 of each file; tells what a disk did to it."""

import hashlib
import json
import os
import pathlib

from pxy import files

NAME = "manifest.json"


def seal(folder: pathlib.Path) -> None:
  """Writes the manifest, once every file and folder is on the disk."""
  listed = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file():
      name = path.relative_to(folder).as_posix()
      listed[name] = [path.stat().st_size, digest(path)]
    sync(path)
  files.write_json(folder / NAME, listed)
  sync(folder)


def damage(folder: pathlib.Path) -> str:
  """What is wrong with the files that were sealed; empty if nothing is."""
  try:
    listed = json.loads((folder / NAME).read_text(encoding="utf-8"))
    if not listed:
      return f"{NAME} names no file"
    for name, (size, known) in listed.items():
      path = folder / name
      if not path.is_file():
        return f"{name} is missing"
      if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes, not {size}"
      if digest(path) != known:
        return f"{name} has changed"
  except FileNotFoundError:
    return f"{NAME} is missing"
  except (OSError, ValueError, TypeError, AttributeError) as error:
    return f"{NAME}: {error}"
  return ""


def sync(path: pathlib.Path) -> None:
  """Has a file, or the names in a folder, on the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file, read in pieces."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
