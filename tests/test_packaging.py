"""The wheel, installed in a fresh virtual environment, is the whole product: twistd's plugin and mtactl work there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mtatwist

ROOT = Path(__file__).parent.parent
#: What the distribution is made of.
SOURCES = ("mtatwist", "twisted", "pyproject.toml", "setup.py", "README.rst", "LICENSE")

#: Only what every process needs: not the checkout on PYTHONPATH.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(directory: Path, *command: str | Path, **environment: str) -> str:
    """Run ``command`` in ``directory`` and return what it says; its failure is the test's, with its words."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing but pip."""
    directory = tmp_path_factory.mktemp("fresh")
    run(directory, sys.executable, "-m", "venv", "venv")
    return directory


@pytest.fixture(scope="module")
def wheel(fresh: Path) -> Path:
    """The wheel, built from a copy: setuptools would reuse a stale build/ in the checkout."""
    copy = fresh / "sources"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy(ROOT / name, copy)
    run(fresh, "venv/bin/pip", "wheel", "--no-deps", "--wheel-dir", "wheels", copy)
    (wheel,) = (fresh / "wheels").glob("mtatwist-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(fresh: Path, wheel: Path) -> Path:
    """The ``bin`` directory of the virtual environment, with the wheel in it."""
    run(fresh, "venv/bin/pip", "install", wheel)
    return fresh / "venv" / "bin"


def test_wheel_carries_the_plugin_and_no_package_of_twisted(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.startswith("twisted/")] == ["twisted/plugins/mtatwist_plugin.py"]
    assert "mtatwist/py.typed" in names


def test_wheel_carries_every_module_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "mtatwist").rglob("*.py")} <= names
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_every_directory_of_modules_is_a_package() -> None:
    directories = {path.parent for path in (ROOT / "mtatwist").rglob("*.py")}
    assert not [str(directory) for directory in directories if not (directory / "__init__.py").exists()]
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_twistd_knows_mta(fresh: Path, installed: Path) -> None:
    assert "A mail transfer agent" in run(fresh, installed / "twistd", "--help")
    said = run(fresh, installed / "twistd", "mta", "--help")
    assert "--config" in said
    assert "--data-dir" in said


def test_twistd_knows_mta_in_a_checkout(fresh: Path, wheel: Path, installed: Path, tmp_path: Path) -> None:
    """Nothing of ours has to be installed where the checkout is on sys.path, which ``pip install -e`` does too."""
    for name in ("twisted", "mtatwist"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    run(fresh, installed / "pip", "uninstall", "--yes", "mtatwist")
    try:
        assert "A mail transfer agent" in run(tmp_path, installed / "twistd", "--help", PYTHONPATH=".")
        assert "--config" in run(tmp_path, installed / "twistd", "mta", "--help", PYTHONPATH=".")
    finally:
        run(fresh, installed / "pip", "install", "--no-deps", wheel)


def test_mtactl_knows_its_version(fresh: Path, installed: Path) -> None:
    assert mtatwist.__version__ in run(fresh, installed / "mtactl", "--version")


def test_nothing_is_imported_that_is_not_declared(fresh: Path, installed: Path) -> None:
    """Every module imports with the declared dependencies alone."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "mtatwist").rglob("*.py"))
    ]
    run(fresh, installed / "python", "-c", "".join(f"import {module}\n" for module in modules))
