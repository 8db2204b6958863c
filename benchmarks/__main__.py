"""How fast minigraph is on the CPU beside PyTorch, JAX, ONNX Runtime and OpenVINO, as far as they are installed.

    pip install -c constraints.txt -e ".[benchmarks]"
    python -m benchmarks [--quick] [--rounds N] [--list table|besides|all] [--only KEY ...] [--who NAME ...]

Steps of training and answers in float32, each from arrays of NumPy's to a loss or to an array of NumPy's. All take
turns, in processes of their own, in several rounds; the others in every mode that could be their best. Losses and
logits are compared. A run in which other processes used more than 0.08 cores is repeated, and discarded if that does
not help: leave the machine alone meanwhile. All run on the first --threads of the cores that this process may use;
taskset chooses others. A whole sitting takes about an hour, and --quick, for a first look, a quarter of it.

It leaves a JSON file with all samples, the tables and a picture in --out. --show makes tables and picture of a JSON
file anew, and of several one table of all. The exit status is 1 where somebody computes something else than
minigraph, or where minigraph fails.

An index may have PyTorch built for a GPU, gigabytes larger: then install its build for processors, 2.13.0+cpu, first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.machine import cores, processor, versions, write_json
from benchmarks.on_cpu import also, report
from benchmarks.on_cpu.contenders import CONTENDERS, OURS, installed
from benchmarks.on_cpu.race import QUICK, Sample, Settings, race
from benchmarks.on_cpu.workloads import LISTS, Workload

PACKAGES = ("numpy ", "torch ", "jax", "onnx", "openvino ")  # as their names begin


def main() -> None:
    options = arguments()
    if options.show:
        several = [json.loads(file.read_text()) for file in options.show]
        for sitting, file in zip(several, options.show):
            show(sitting, file)
        if len(several) > 1:
            print(report.sittings(several))
        return
    workloads = [one for one in LISTS[options.list] if named(one.key, options.only)]
    if not workloads:
        sys.exit(f"there is no such workload, but {', '.join(one.key for one in LISTS[options.list])}")
    contenders, missing = installed([one for one in CONTENDERS if one.name == OURS or named(one.name, options.who)])
    for sentence in missing:
        print(sentence, file=sys.stderr)
    settings = Settings(threads=options.threads, others=options.others)
    settings = replace(settings, **QUICK) if options.quick else settings
    settings = replace(settings, rounds=options.rounds) if options.rounds else settings
    options.out.mkdir(parents=True, exist_ok=True)
    sitting, file = begun(workloads, settings, missing), options.out / f"{datetime.now():%Y%m%d-%H%M%S}.json"

    def note(sample: Sample) -> None:
        sitting["samples"].append(sample)
        write_json(file, sitting)
        print(line(sample), file=sys.stderr, flush=True)

    if not options.only and not options.who:
        sitting["also"] = {"compiling": also.compile_seconds(), "import_s": also.import_seconds(settings.rounds + 2)}
    race(workloads, contenders, settings, note)
    write_json(file, sitting)
    sys.exit(1 if report.wrong(show(sitting, file)) else 0)


def arguments() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keys = ", ".join(one.key for one in LISTS["all"])
    names = "; ".join(one.name for one in CONTENDERS if one.name != OURS)
    parser.add_argument("--list", choices=[*LISTS], default="table", help="which workloads (table)")
    parser.add_argument("--only", metavar="KEY", nargs="+", default=[], help=f"of {keys}; a pattern, as 'resnet*'")
    parser.add_argument("--who", metavar="NAME", nargs="+", default=[], help=f"minigraph, and of {names}; or a pattern")
    parser.add_argument("--rounds", metavar="N", type=int, help=f"({Settings.rounds})")
    parser.add_argument("--quick", action="store_true", help="one round of short runs")
    parser.add_argument("--threads", metavar="N", type=int, default=Settings.threads, help=f"({Settings.threads})")
    parser.add_argument(
        "--others",
        metavar="CORES",
        type=float,
        default=Settings.others,
        help=f"what other processes may use ({Settings.others})",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("out/cpu"), help="for what it leaves")
    parser.add_argument(
        "--show", metavar="FILE", type=Path, nargs="+", help="tables and picture of JSON files, and one table of all"
    )
    return parser.parse_args()


def named(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns fits, or there are none."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def begun(workloads: Sequence[Workload], settings: Settings, missing: Sequence[str]) -> dict[str, Any]:
    """A sitting without samples: what the tables need to know besides."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": len(cores()),
        "load": os.getloadavg()[0],
        "versions": versions(PACKAGES),
        "missing": list(missing),
        "settings": asdict(settings),
        "workloads": [
            {"name": one.name, "training": one.optimizer is not None, "least": one.least, "aim": one.aim}
            for one in workloads
        ],
        "samples": [],
    }


def line(sample: Sample) -> str:
    """One sample, as it comes."""
    head = f"{sample['round'] + 1}. {sample['workload']}, {sample['contender']}: "
    if "error" in sample:
        return head + sample["error"]
    tail = f"; discarded, others used {sample['others']:.2f} cores" if sample["discarded"] else ""
    return f"{head}{sample['median_ms']:.3f} ms ({sample['least_ms']:.3f}){tail}"


def show(sitting: dict[str, Any], file: Path) -> list[report.Row]:
    """Write and print the tables, and draw the picture."""
    text = report.markdown(sitting)
    file.with_suffix(".md").write_text(text)
    print(text)
    try:
        report.picture(sitting, file.with_suffix(".svg"))
    except ImportError as error:
        print(f"there is no picture: {error}", file=sys.stderr)
    print(f"All figures are in {file}.", file=sys.stderr)
    return report.rows(sitting["workloads"], sitting["samples"])


if __name__ == "__main__":
    main()
