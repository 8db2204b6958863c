"""pytest --gpu: what it says where there is no GPU, and which tests it leaves to the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILE = "tests/test_cuda_program.py"
HERE = Path(__file__).parent.parent
WITH_A_GPU = """
import sys
from pathlib import Path
import pytest
sys.path.insert(0, "tests")
from cuda_on_cpu import Processor
from minigraph.backends.cupy import device
made = Processor(Path())
device.device = lambda: made
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('it is broken')")
    command = [sys.executable, "-m", "pytest", "--gpu", "--collect-only", "-q", FILE]
    done = subprocess.run(
        command, cwd=HERE, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 4
    assert done.stderr == "ERROR: --gpu: CuPy cannot be loaded: it is broken\n\n"


def test_those_that_look_into_the_cpu_are_left_out() -> None:
    command = [sys.executable, "-c", WITH_A_GPU, "--gpu", "--collect-only", "-q", FILE, "tests/test_driver.py"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "::test_replayed_steps_are_those_that_are_launched_one_by_one" in done.stdout
    assert "::test_a_step_is_captured_once_and_replayed" not in done.stdout
    assert "tests/test_driver.py" not in done.stdout
