"""The cache of compiled libraries: found again, never loaded damaged, kept within its size, and no one's trap."""

import errno
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from minigraph.backends.c import cache
from minigraph.backends.c import compiler as compiler_module
from minigraph.backends.c.compiler import compiled
from minigraph.tools import command

KEYS = [cache.key([str(number)]) for number in range(6)]
SOURCE = "// Answers.\nint answer(void) { return 42; }\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of its own, into which nothing has been written, by a process that has loaded nothing."""
    monkeypatch.setenv("MINIGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler_module, "_loaded", {})
    monkeypatch.setattr(cache, "_said", set())
    compiler_module._found.cache_clear()
    yield tmp_path / "cache"
    compiler_module._found.cache_clear()


def built(place, text="library", source=SOURCE):
    place.mkdir(exist_ok=True)
    (place / cache.SOURCE).write_text(source)
    (place / cache.LIBRARY).write_text(text)
    return place


def fill(tmp_path, sizes, used=0.0):
    """Entries with libraries of these sizes, the first used first."""
    for i, (key, size) in enumerate(zip(KEYS, sizes)):
        cache.keep(key, built(tmp_path / "built", "x" * size, ""), {})
        os.utime(cache.where() / key / cache.ABOUT, (used + i, used + i))


def keys():
    return {entry.folder.name for entry in cache.entries()}


def in_another_process(source=SOURCE):
    """A process that compiles the source, and prints what it answers."""
    code = "import sys; from minigraph.backends.c.compiler import compiled; print(compiled(sys.argv[1]).answer())"
    return subprocess.Popen(
        [sys.executable, "-c", code, source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(process):
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.strip()


def test_what_is_kept_is_found(tmp_path, folder):
    assert cache.find(KEYS[0]) is None
    library = cache.keep(KEYS[0], built(tmp_path / "built"), {"compiler": "cc 1"})
    assert library is not None
    assert library == folder / KEYS[0] / cache.LIBRARY
    assert library == cache.find(KEYS[0])
    assert library.read_text() == "library"
    assert (library.parent / cache.SOURCE).read_text() == SOURCE
    (entry,) = cache.entries()
    assert (entry.title, entry.about["compiler"]) == ("Answers.", "cc 1")
    assert entry.bytes == sum(file.stat().st_size for file in library.parent.iterdir())
    assert [path.name for path in folder.iterdir()] == [KEYS[0]]


def test_keys_differ_where_the_parts_do():
    parts: list[list[str | bytes]] = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], [b"ab", "c"]]
    assert len({cache.key(some) for some in parts}) == 4


def damage_library(entry):
    with open(entry / cache.LIBRARY, "r+b") as file:
        file.truncate(3)


def damage_one_letter(entry):
    (entry / cache.LIBRARY).write_text("labrary")


@pytest.mark.parametrize(
    "damage",
    [
        damage_library,
        damage_one_letter,
        lambda entry: (entry / cache.LIBRARY).unlink(),
        lambda entry: (entry / cache.ABOUT).unlink(),
        lambda entry: (entry / cache.ABOUT).write_text(""),
        lambda entry: (entry / cache.ABOUT).write_text("[]"),
        lambda entry: (entry / cache.ABOUT).write_bytes(b"\xff"),
        lambda entry: (entry / cache.ABOUT).write_text('{"sha256": 3}'),
        lambda entry: entry.rename(entry.parent / "moved") and entry.write_text("a file"),
    ],
)
def test_what_is_damaged_is_not_found_and_is_replaced(tmp_path, folder, damage):
    cache.keep(KEYS[0], built(tmp_path / "built"), {})
    damage(folder / KEYS[0])
    assert cache.find(KEYS[0]) is None
    library = cache.keep(KEYS[0], tmp_path / "built", {})
    assert library is not None
    assert library.read_text() == "library"


@pytest.mark.compiler
def test_a_truncated_library_is_compiled_anew(folder):
    assert result(in_another_process()) == "42"
    for library in folder.glob("*/library.so"):
        damage_library(library.parent)
    assert result(in_another_process()) == "42"


@pytest.mark.compiler
def test_a_library_of_another_system_is_compiled_anew(folder):
    """Sound, but not to be loaded here: as in a home folder that two systems share."""
    assert result(in_another_process()) == "42"
    (entry,) = (entry for entry in cache.entries() if entry.title == "Answers.")
    cache.forget(entry.folder.name)
    cache.keep(entry.folder.name, built(folder.parent / "built"), {})
    assert compiled(SOURCE).answer() == 42
    assert (entry.folder / cache.LIBRARY).read_bytes()[:4] != b"libr"


@pytest.mark.compiler
def test_the_second_process_compiles_nothing(folder, tmp_path, monkeypatch):
    assert result(in_another_process()) == "42"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    times = {file: file.stat().st_mtime_ns for file in folder.glob("*/library.so")}
    assert result(in_another_process()) == "42"
    assert times == {file: file.stat().st_mtime_ns for file in folder.glob("*/library.so")}


@pytest.mark.compiler
def test_processes_that_compile_at_once(folder):
    processes = [in_another_process() for _ in range(4)]
    assert [result(process) for process in processes] == ["42"] * 4
    assert {entry.title for entry in cache.entries()} == {"Answers.", "A trial of the compiler."}
    assert {path.name for path in folder.iterdir()} == keys()


def test_the_place_is_taken_while_we_write(tmp_path):
    """A sound entry of another process stays."""
    first = cache.keep(KEYS[0], built(tmp_path / "first"), {})
    assert cache.keep(KEYS[0], built(tmp_path / "second", "another"), {}) == first
    assert first is not None
    assert first.read_text() == "library"
    assert len(list(cache.where().iterdir())) == 1


def no_folder(monkeypatch, folder):
    folder.write_text("a file, where the folder should be")


def no_space(monkeypatch, folder):
    def full(*files):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)


@pytest.mark.compiler
@pytest.mark.parametrize(("trouble", "why"), [(no_folder, "File exists"), (no_space, "No space left on device")])
def test_a_folder_that_cannot_be_written_is_said_once(folder, monkeypatch, trouble, why):
    trouble(monkeypatch, folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert compiled(SOURCE).answer() == 42
        assert compiled(SOURCE + " ").answer() == 42
    (warning,) = said
    assert f"compiled programs cannot be kept in {folder} ({why})" in str(warning.message)
    assert not folder.is_dir() or list(folder.iterdir()) == []


def test_a_folder_that_can_only_be_read(tmp_path, monkeypatch):
    library = cache.keep(KEYS[0], built(tmp_path / "built"), {})

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "utime", refused)
    assert cache.find(KEYS[0]) == library


def test_the_longest_unused_go_first(tmp_path):
    fill(tmp_path, [1000, 1000, 1000, 1000])
    cache.find(KEYS[1])  # used now
    cache.trim(limit=2500)
    assert keys() == {KEYS[1], KEYS[3]}


def test_the_new_one_stays(tmp_path):
    fill(tmp_path, [1000, 1000])
    cache.trim(limit=10, keep=KEYS[0])
    assert keys() == {KEYS[0]}


def test_to_keep_is_to_trim(tmp_path, monkeypatch):
    fill(tmp_path, [1000, 1000])
    monkeypatch.setattr(cache.trim, "__defaults__", (1500, ""))
    cache.keep(KEYS[2], built(tmp_path / "built", "y" * 1000), {})
    assert keys() == {KEYS[2]}


def test_foreign_files_stay(tmp_path, folder):
    fill(tmp_path, [10])
    foreign = [folder / "notes.txt", folder / "folder" / "file", folder / ("0" * 64 + ".so"), folder / KEYS[1][:40]]
    (folder / "folder").mkdir()
    for file in foreign:
        file.write_text("mine")
    (folder / KEYS[2]).symlink_to(tmp_path)
    assert [entry.folder.name for entry in cache.clear()] == [KEYS[0]]
    cache.trim(limit=0)
    assert [file.read_text() for file in foreign] == ["mine"] * 4
    assert (tmp_path / "built" / cache.LIBRARY).exists()


def test_what_a_stopped_process_left_goes_in_time(tmp_path, folder):
    fill(tmp_path, [10])
    for name in (".new-old", ".new-young", ".old-old"):
        (folder / name).mkdir()
        if "-old" in name:
            os.utime(folder / name, (time.time() - 2 * cache.ABANDONED,) * 2)
    cache.keep(KEYS[1], tmp_path / "built", {})
    assert {path.name for path in folder.iterdir()} == {*KEYS[:2], ".new-young"}


def test_where(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.where() == tmp_path / "cache"
    monkeypatch.setenv("MINIGRAPH_CACHE", "relative")
    assert cache.where() == Path.cwd() / "relative"
    monkeypatch.delenv("MINIGRAPH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.where() == tmp_path / "xdg" / "minigraph" / "c"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.where() == tmp_path / "home" / ".cache" / "minigraph" / "c"


def test_command(tmp_path, folder, capsys):
    assert command.main(["cache", "where"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert command.main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 libraries, 0.00 MB, in {folder}\n"
    fill(tmp_path, [50_000], used=1e9)
    cache.keep(KEYS[1], built(tmp_path / "built"), {})
    (folder / KEYS[1] / cache.ABOUT).write_text("damaged")
    assert command.main(["cache", "list"]) == 0
    new, old, total = capsys.readouterr().out.splitlines()
    assert new.startswith(f"{KEYS[1][:12]}      0.00 MB  used ")
    assert new.endswith("  Answers.")
    assert old.startswith(f"{KEYS[0][:12]}      0.05 MB  used 2001-09-0")
    assert total == f"2 libraries, 0.05 MB, in {folder}"
    assert command.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"2 libraries, 0.05 MB, removed from {folder}\n"
    assert list(folder.iterdir()) == []


def test_command_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as status:
        command.main(["cache", "burn"])
    assert status.value.code == 2
    assert "invalid choice: 'burn'" in capsys.readouterr().err
