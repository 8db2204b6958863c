"""What is said of batch normalization, tried: eleven experiments, a file each, with their figures and verdicts.

python -m examples.batch_norm --quick     # all of them on scikit-learn's digits, a few minutes
python -m examples.batch_norm faster      # one of them on Fashion-MNIST
"""

import sys
from pathlib import Path

# The programs in examples/ import one another by their plain names, as if started there.
if (folder := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.append(folder)
