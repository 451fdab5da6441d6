"""No-op tasks per second of dask.distributed: ``dask_tasks.py TASKS WARM_UP``, in their own environment."""

import json
import statistics
import sys
import time

WORKERS = 3
ROUNDS = 3


def noop(number: int) -> int:
    """A small value."""
    return number


def main(tasks: int, warm_up: int) -> None:
    """Print the median of some rounds as one JSON line."""
    from distributed import Client, LocalCluster  # type: ignore[import-not-found, unused-ignore]

    rates = []
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(noop, range(warm_up), pure=False))
        for _ in range(ROUNDS):
            began = time.perf_counter()
            client.gather(client.map(noop, range(tasks), pure=False))
            rates.append(tasks / (time.perf_counter() - began))
    print(json.dumps({"tasks_per_s": statistics.median(rates), "rounds": rates}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
