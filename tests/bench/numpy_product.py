"""The product of two saved matrices by NumPy: one JSON line of seconds and CPU seconds for each line on stdin.

    python -m tests.bench.numpy_product A.npy B.npy

Started by ``product.py`` with as many BLAS threads as it wants. Both factors are in memory, and so is the result.
"""

import json
import sys
import time

import numpy as np


def main() -> None:
    """Answer until stdin ends."""
    a, b = (np.load(path, allow_pickle=False) for path in sys.argv[1:])
    c = np.empty((a.shape[0], b.shape[1]), a.dtype)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        np.matmul(a, b, out=c)
        print(json.dumps({"took_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
