# pxy is a wheel, a folder or "git+https://..."; left empty, it is looked for here.
SOURCE = ""

import importlib.util
import pathlib
import subprocess
import sys


def found():  # a folder `pxy` beside this page is a clone, and not the package
  spec = importlib.util.find_spec("pxy") if "pxy" not in sys.modules else None
  return bool(spec and spec.origin) or hasattr(sys.modules.get("pxy"), "__version__")


if not found():
  wheels = sorted(map(str, pathlib.Path().glob("pxy_rl-*.whl")))
  clones = [p for p in (".", "..", "pxy") if pathlib.Path(p, "pxy/loop.py").is_file()]
  source = SOURCE or next(iter(wheels[-1:] + clones), None)
  if source is None:
    raise SystemExit("pxy is not here: put its wheel beside this page, or set SOURCE")
  source = str(pathlib.Path(source).resolve()) if "://" not in source else source
  subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)
  sys.modules.pop("pxy", None)  # what an `import pxy` before this may have left
  importlib.invalidate_caches()
  assert found(), f"{source} was installed, and pxy is not found: restart the kernel"
