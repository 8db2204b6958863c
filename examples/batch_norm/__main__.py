"""Run experiments, print their verdicts, and leave figures and measurements in out/batch_norm.

python -m examples.batch_norm --quick
python -m examples.batch_norm faster folding
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from training import friendly

from .catalog import EXPERIMENTS
from .data import digits, fashion
from .experiment import LEAST_SEEDS, At
from .gallery import keep, page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.batch_norm", description="Batch norm, shown.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXPERIMENTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits in place of Fashion-MNIST; smaller")
    parser.add_argument("--seeds", type=int, default=LEAST_SEEDS, help=f"how many, at least {LEAST_SEEDS}")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST (default: Debian's package, or out/data)")
    parser.add_argument("--out", type=Path, default=Path("out/batch_norm"), help="folder for the page and results/")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    if options.seeds < LEAST_SEEDS:
        parser.error(f"a verdict needs {LEAST_SEEDS} seeds, not {options.seeds}")
    at = At("quick", digits()) if options.quick else At("full", fashion(options.data))
    os.environ.setdefault("MINIGRAPH_THREADS", "1")  # networks this small gain nothing by more
    begin = time.perf_counter()
    for name in options.names or EXPERIMENTS:
        experiment, start = EXPERIMENTS[name], time.perf_counter()
        print(f"{experiment.title} ({name})", flush=True)
        records = experiment.run(range(options.seeds), at)
        seconds = time.perf_counter() - start
        keep(options.out, experiment, at, records, seconds)
        for claim, verdict in zip(experiment.claims, experiment.verdicts(records)):
            print(f"  {verdict.word.upper()}: {claim.says}\n    {verdict.line}")
        print(f"  {seconds:.0f} s", flush=True)
    (options.out / "README.md").write_text(page(options.out, EXPERIMENTS.values()), encoding="utf-8")
    print(f"{time.perf_counter() - begin:.0f} s in all; figures, measurements and a page are in {options.out}")


if __name__ == "__main__":
    friendly(main)
