import subprocess
import sys

import pytest
import torch

from lusbio.files import ROOT


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_the_benchmark_says_so_in_one_line():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks/gpu.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "no CUDA device" in line
