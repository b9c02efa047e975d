"""The map in pxy/__init__.py is true: imports go up it only, and the top is small."""

import ast
import pathlib
import subprocess
import sys

import pytest

import pxy

ROOT = pathlib.Path(pxy.__file__).parent
TOP = 12
"""Most files at the top of the package."""


def imported(file: pathlib.Path, root: pathlib.Path) -> set[str]:
  """Modules of the package that a file imports, anywhere in it: `rl/view`."""

  def module(dotted: str) -> str | None:
    parts = dotted.split(".")[1:]
    for n in (len(parts), len(parts) - 1):
      path = root.joinpath(*parts[:n])
      if n and (path.with_suffix(".py").is_file() or path.is_dir()):
        return "/".join(parts[:n])
    return None

  found = set()
  for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
    if isinstance(node, ast.ImportFrom) and node.level:
      found.add(f"{'.' * node.level} (relative)")
    elif isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "imports.later":
      names = [ast.literal_eval(node.args[0])] if _literal(node.args[0]) else []
    else:
      continue
    found |= {module(name) for name in names if name.split(".")[0] == "pxy"}
  return found - {None}


def _literal(node: ast.expr) -> bool:
  return isinstance(node, ast.Constant)  # an f-string names a library's inside


def faults(root: pathlib.Path) -> list[str]:
  """What breaks the map, a line each: an arrow down, an unknown part, a cycle."""
  out, inside = [], {}
  for file in sorted(root.rglob("*.py")):
    name = file.relative_to(root).with_suffix("").as_posix()
    own = name.split("/")[0]
    if own in ("__init__", "__main__"):
      continue
    if own not in pxy.ORDER:
      out.append(f"{name}: {own!r} has no place in pxy.ORDER (pxy/__init__.py)")
      continue
    for other in sorted(imported(file, root)):
      part = other.split("/")[0]
      if part not in pxy.ORDER:
        out.append(f"{name} imports {other}, which has no place in pxy.ORDER")
      elif pxy.ORDER.index(part) > pxy.ORDER.index(own):
        out.append(f"{name} imports {other}, which stands below it in pxy.ORDER")
      elif part == own and other != name:
        inside.setdefault(name, set()).add(other)
  return out + [f"files import each other: {' -> '.join(c)}" for c in cycles(inside)]


def cycles(arrows: dict[str, set[str]]) -> list[list[str]]:
  """A way round for each cycle that is met; none means that an order exists."""
  found, done = [], set()

  def walk(name, way):
    if name in way:
      found.append([*way[way.index(name) :], name])
    elif name not in done:
      for other in sorted(arrows.get(name, ())):
        walk(other, [*way, name])
      done.add(name)

  for name in sorted(arrows):
    walk(name, [])
  return found


def test_imports_go_up_only():
  assert not faults(ROOT), "move the import or the file; see pxy.ORDER"


def test_a_planted_import_is_seen(tmp_path):
  copy = tmp_path / "pxy"
  for name, text in {
    "fields.py": "def late():\n  from pxy.rl import view\n",
    "rl/view.py": "from pxy.rl import pack\n",
    "rl/pack.py": "import pxy.rl.view\n",
    "odd/one.py": "",
    "files.py": "from pxy import imports\nloop = imports.later('pxy.loop')\n",
    "loop.py": "",
  }.items():
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text(text)
  assert faults(copy) == [
    "fields imports rl/view, which stands below it in pxy.ORDER",
    "files imports loop, which stands below it in pxy.ORDER",
    "odd/one: 'odd' has no place in pxy.ORDER (pxy/__init__.py)",
    "files import each other: rl/pack -> rl/view -> rl/pack",
  ]


def test_the_top_holds_few_files_and_the_order_names_what_is_there():
  top = {p.name for p in ROOT.iterdir() if p.suffix in (".py", ".typed")}
  assert len(top) <= TOP, f"a folder for some of these: {sorted(top)}"
  parts = {p.stem for p in ROOT.glob("*.py")} | {
    p.name for p in ROOT.iterdir() if any(p.glob("*.py"))
  }
  assert parts - {"__init__", "__main__"} == set(pxy.ORDER)


@pytest.mark.parametrize("name", ["pxy.loop", "pxy.commands.cli", "pxy.rl.objective"])
def test_importing_touches_no_backend(name):
  code = (
    f"import sys, {name}; xb = sys.modules.get('jax._src.xla_bridge');"
    " assert xb is None or not xb._backends, 'a backend was started by an import'"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_session_knows_nothing_of_what_is_trained():
  found, more = set(), {"run/session"}
  while more:
    found |= more
    files = [f for f in (ROOT / f"{name}.py" for name in more) if f.is_file()]
    more = set().union(*(imported(file, ROOT) for file in files)) - found
  parts = {name.split("/")[0] for name in found - {"run/folder", "weights/hf"}}
  assert not parts & {"sampling", "rewards"}, f"session reaches {sorted(found)}"
  assert "rl" not in {n.split("/")[0] for n in imported(ROOT / "run/session.py", ROOT)}


def test_importing_the_loop_leaves_out_what_a_run_needs_late_or_never():
  slow = "matplotlib grain tensorflow_datasets orbax.checkpoint gguf pyarrow tokenizers"
  slow += " jax.experimental.pallas.tpu"
  code = f"import sys, pxy.loop; print(*set({slow.split()}) & sys.modules.keys())"
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, timeout=120, stdout=-1, text=True
  )
  assert done.stdout.strip() == "", (
    f"import pxy.loop also imports {done.stdout.strip()}: import it in the function"
    " that needs it, for it takes a second"
  )
