"""The Python packages that benchmarks need, without asking anybody to install them first."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import venv

CACHE = pathlib.Path(os.environ.get("COMPANYOS_CACHE", pathlib.Path.home() / ".cache/companyos"))
NEEDED = ["duckdb", "deltalake", "pyarrow", "numpy"]


def ensure_packages(script):
    """Goes on in a virtual environment if this Python lacks a package."""
    if all(importlib.util.find_spec(name) for name in NEEDED):
        return
    place = CACHE / "benchmarks-venv"
    if pathlib.Path(sys.prefix).resolve() == place.resolve():
        sys.exit(f"{place} lacks one of {', '.join(NEEDED)}")
    if not (place / "bin/python").exists():
        venv.create(place, with_pip=True)
    subprocess.run([place / "bin/python", "-m", "pip", "install", "--quiet", *NEEDED], check=True)
    os.execv(place / "bin/python", [str(place / "bin/python"), script, *sys.argv[1:]])
