"""Compiled libraries, kept in the user's cache folder: one folder for each, named by the hash of all that went into it.

    KEY/source.c      what was compiled, for people and debuggers
    KEY/library.so
    KEY/about.json    the library's checksum, the compiler and its flags; its time is that of the last use
    peak-KEY.json     what the machine can do at best: see peak.py
    tuned-KEY.json    which kernels are the fastest for some sizes: see tuning.py

An entry is written beside its place and renamed, so it is there whole or not at all, also when two processes make it at
once. A library whose checksum is wrong is never loaded. Nothing else that lies in the folder is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE, LIBRARY, ABOUT = "source.c", "library.so", "about.json"
LIMIT = 1 << 30  # bytes of all entries; the longest unused go first
ABANDONED = 600.0  # seconds after which what was never renamed is taken for left behind
KEY = re.compile(r"[0-9a-f]{64}")
PEAK = "peak-{}.json"
TUNED = "tuned-{}.json"
UNFINISHED = re.compile(r"\.(new|old)-.*")

_said: set[Path] = set()  # folders that could not be written


@dataclass(frozen=True)
class Entry:
    """One library of the cache."""

    folder: Path
    about: Mapping[str, Any]
    bytes: int
    used: float  # seconds since 1970

    @property
    def title(self) -> str:
        """The first line of its source, if that is a comment."""
        with suppress(OSError, UnicodeDecodeError), open(self.folder / SOURCE, encoding="utf-8") as source:
            first = source.readline().strip()
            if first.startswith("//"):
                return first[2:].strip()
        return ""


def where() -> Path:
    """The folder: $MINIGRAPH_CACHE, or minigraph/c in the place that the system has for caches."""
    own = os.environ.get("MINIGRAPH_CACHE")
    return Path(own).expanduser().absolute() if own else user_caches() / "minigraph" / "c"


def user_caches() -> Path:
    """Where the system wants programs to keep what they can make anew."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local").absolute()
    if sys.platform == "darwin":
        return (home / "Library" / "Caches").absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache").absolute()


def key(parts: Iterable[str | bytes]) -> str:
    """SHA-256 of the parts, which cannot run into each other."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(b"%d:" % len(data))
        hashed.update(data)
    return hashed.hexdigest()


def find(key: str) -> Path | None:
    """The library of this key, if it is there and sound. To be found is to be used."""
    entry = where() / key
    try:
        about = json.loads((entry / ABOUT).read_text(encoding="utf-8"))
        if about["sha256"] != _checksum(entry / LIBRARY):
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    with suppress(OSError):  # a folder that can only be read serves as well
        os.utime(entry / ABOUT)
    return entry / LIBRARY


def keep(key: str, built: Path, about: Mapping[str, Any]) -> Path | None:
    """Put the folder `built` into the cache, as `put` does, and make room where it is full."""
    kept = put(key, built, about)
    if kept:
        trim(keep=key)
    return kept


def put(key: str, built: Path, about: Mapping[str, Any]) -> Path | None:
    """Put the folder `built`, which has a source and a library, into the cache under this key; the library there.

    A sound one that is there already stays, a damaged one is replaced. None if the folder cannot be written, which is
    said once. Whoever has put all that there is to put calls `trim`.
    """
    folder = where()
    new = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        for name in (SOURCE, LIBRARY):
            shutil.copyfile(built / name, new / name)
        sums = {"sha256": _checksum(built / LIBRARY)}
        (new / ABOUT).write_text(json.dumps({**about, **sums}, indent=2) + "\n", encoding="utf-8")
        _put(new, key)
    except OSError as error:
        if new:
            shutil.rmtree(new, ignore_errors=True)
        if folder not in _said:
            _said.add(folder)
            warnings.warn(
                f"compiled programs cannot be kept in {folder} ({error.strerror or error}): each process compiles its "
                "own; MINIGRAPH_CACHE names another folder",
                RuntimeWarning,
                stacklevel=2,
            )
        return None
    return find(key)


def forget(key: str) -> None:
    """Take the entry of this key out, if it is there."""
    with suppress(OSError):
        out = Path(tempfile.mkdtemp(prefix=".old-", dir=where()))
        with suppress(OSError):
            os.rename(where() / key, out / "entry")
        shutil.rmtree(out, ignore_errors=True)


def entries() -> list[Entry]:
    """All entries, damaged ones too, the last used first."""
    found = []
    for folder in _children():
        if KEY.fullmatch(folder.name):
            with suppress(OSError):  # it has just been removed
                used = folder.stat().st_mtime
                about = {}
                with suppress(OSError, ValueError):
                    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
                    used = (folder / ABOUT).stat().st_mtime
                size = sum(file.lstat().st_size for file in folder.iterdir())
                found.append(Entry(folder, about if isinstance(about, dict) else {}, size, used))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear() -> list[Entry]:
    """Remove all entries; those that were there. Programs that run go on. OSError if one cannot be removed.

    What was measured of the machine goes as well.
    """
    there = entries()
    for name in (PEAK, TUNED):
        for measured in where().glob(name.format("[0-9a-f]" * 64)):
            measured.unlink(missing_ok=True)
    for entry in there:
        with suppress(FileNotFoundError):  # somebody else was faster
            shutil.rmtree(entry.folder)
    _sweep()
    return there


def trim(limit: int = LIMIT, keep: str = "") -> None:
    """Remove the longest unused entries until the rest has `limit` bytes at most; the one of the key `keep` stays."""
    total = 0
    for entry in entries():
        if entry.folder.name == keep or total + entry.bytes <= limit:
            total += entry.bytes
        else:
            shutil.rmtree(entry.folder, ignore_errors=True)
    _sweep()


def _sweep() -> None:
    """Remove what processes that were stopped have left unfinished."""
    for folder in _children():
        with suppress(OSError):
            if UNFINISHED.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _children() -> list[Path]:
    try:
        return [path for path in where().iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _put(new: Path, key: str) -> None:
    """Rename, which does not replace: what is in the place is taken out first, unless it is as good."""
    try:
        os.rename(new, where() / key)
    except OSError:
        if find(key):
            shutil.rmtree(new, ignore_errors=True)
            return
        forget(key)
        os.rename(new, where() / key)
