"""What pyproject.toml, constraints.txt and .typing/ say about the tree is so, and the guards speak."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from packaging.requirements import Requirement

import minigraph

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]


def test_the_packages_are_the_folders():
    there = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(there)


def test_every_folder_with_modules_is_a_package():
    sources = [path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")]
    assert [str(p) for p in sources if not (p.parent / "__init__.py").exists()] == []


def test_the_links_for_type_checkers_are_the_package():
    links = {path.name: path for path in (ROOT / ".typing" / "minigraph").iterdir()}
    targets = {path.name: path for path in (ROOT / "minigraph").iterdir() if path.name != "__pycache__"}
    targets |= {"ops": ROOT / "ops", "passes": ROOT / "passes"}
    wrong = [f"missing, ln -s ../../{path.relative_to(ROOT)}" for name, path in targets.items() if name not in links]
    wrong += [f"a link to nothing: {name}" for name in links if name not in targets]
    for name in links.keys() & targets.keys():
        link = os.readlink(links[name])
        if link != f"../../{targets[name].relative_to(ROOT).as_posix()}":
            wrong.append(f"{name} is a link to {link}")
    assert not wrong, "in .typing/minigraph/:\n" + "\n".join(wrong)


def test_the_version_is_said_once():
    assert minigraph.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_once(python):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    needs = map(Requirement, [*PYPROJECT["project"]["dependencies"], *(need for extra in extras for need in extra)])

    def applies(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"python_version": python})

    for need in needs:
        if need.name != "minigraph" and applies(need):
            matching = [pin for pin in pins if pin.name == need.name and applies(pin)]
            assert len(matching) == 1, need.name
            assert next(iter(matching[0].specifier)).version in need.specifier


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_the_source_folder_alone_says_what_to_type():
    # -S leaves out site-packages, and with them the installation
    done = run("-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import minigraph")
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("ImportError: minigraph is not installed")
    assert "pip install -e ." in sentence


@pytest.mark.parametrize("folder", ["ops", "passes"])
def test_a_mapped_folder_refuses_a_second_name(folder):
    done = run("-c", f"import {folder}", cwd=ROOT)
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("ImportError: ")
    assert f"minigraph.{folder}" in sentence


@pytest.mark.nightly
def test_a_wheel_holds_the_tree(tmp_path):
    # of a copy: building leaves build/ behind, and a stale one would put deleted modules into the wheel
    source = tmp_path / "source"
    for folder in FOLDERS.values():
        copytree(ROOT / folder, source / folder, ignore=ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "LICENSE", PYPROJECT["project"].get("readme")):
        if file:
            (source / file).write_bytes((ROOT / file).read_bytes())
    done = run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("minigraph-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "installed")
    tree = {
        "/".join([*package.split("."), *path.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(held) == sorted(tree)

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    code = "import minigraph.ops, minigraph.passes; print(minigraph.ops.__file__)"
    done = run("-c", code, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == str(tmp_path / "installed" / "minigraph" / "ops" / "__init__.py"), done.stderr
