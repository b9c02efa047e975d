"""Packages that do not go together are one line with the cure, before any is
imported."""

import pathlib
import tomllib

import pytest

from pxy import __main__ as command
from pxy import fields, versions

FAULTS = [
  ("jax 0.12.0.1 flax 0.12.8", "jax 0.12.0.1 needs flax >= 0.12.9, and 0.12.8"),
  ("jax 0.11.0 flax 0.12.0", "'flax>=0.12.9' (or 'jax<0.11')"),
  ("jax 0.10.2 flax 0.12.12", "flax 0.12.12 needs jax >= 0.11.1, and 0.10.2"),
  ("pxy 0 jax 0.6.2", "pxy needs jax >= 0.7, and 0.6.2 is installed: pip install -U"),
  ("sentencepiece 0.2.3 protobuf 5.29.6", "pip install -U 'protobuf>=7.36.1'"),
  ("tensorflow_metadata 1.21.0 protobuf 4.25.8", "'protobuf>=6.31.1'"),
]
PAIRS = [
  "pxy 0 jax 0.10.2 flax 0.12.8 protobuf 7.36.2 sentencepiece 0.2.3",
  "pxy 0 jax 0.12.0.1 flax 0.12.12",
  "pxy 0 jax 0.7.2 flax 0.12.0 protobuf 5.29.5 sentencepiece 0.2.1",
  "pxy 0 jax 0.7.0 flax 0.11.2",
  "pxy 0 jax 0.11.0.dev20260101",  # no Flax: its losses need none
]


def of(text):
  words = text.split()
  return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize(("found", "told"), FAULTS)
def test_what_does_not_go_together_is_told_with_its_cure(found, told):
  line = versions.wrong(of(found))
  assert line and told in line and "\n" not in line


@pytest.mark.parametrize("found", PAIRS)
def test_what_goes_together_is_not(found):
  assert versions.wrong(of(found)) is None


def plant(folder, text):
  for name, version in of(text).items():
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True)


def test_the_first_folder_on_the_path_counts(tmp_path):
  plant(tmp_path / "a", "jax 0.12.0.1 Flax 0.12.9")
  plant(tmp_path / "b", "jax 0.7.2 optax 0.2.6")
  path = [str(tmp_path / name) for name in ("none", "a", "b")]
  assert versions.installed({"jax", "flax"}, path) == of("jax 0.12.0.1 flax 0.12.9")


def test_a_wrong_pair_stops_library_and_command(tmp_path, monkeypatch, capsys):
  plant(tmp_path, "jax 0.12.0.1 flax 0.12.8")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(fields.Error, match=r"^jax 0\.12\.0\.1 needs flax >= 0\.12\.9"):
    versions.check("jax", "flax")
  versions.check("protobuf")  # who uses losses alone is not told of others
  monkeypatch.setattr("sys.argv", ["pxy", "--help"])
  assert command._run() == 2
  told = capsys.readouterr()
  assert not told.out and told.err.startswith("pxy: jax 0.12.0.1 needs flax >= 0.12.9")
  assert told.err.count("\n") == 1


def test_the_least_versions_are_those_of_the_package():
  file = pathlib.Path(__file__).parent.parent / "pyproject.toml"
  asked = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
  for name, _, other, least in versions.NEEDS:
    if name == "pxy":
      assert any(line.startswith(f"{other}>={least}") for line in asked), (
        f"pyproject.toml asks for another {other} than pxy/versions.py"
      )
