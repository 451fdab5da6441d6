"""No-op tasks per second of Ray: ``ray_tasks.py TASKS WARM_UP``, in the environment of the alternatives."""

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
    import ray  # type: ignore[import-not-found, unused-ignore]

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(noop)
    ray.get([remote.remote(number) for number in range(warm_up)])
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        ray.get([remote.remote(number) for number in range(tasks)])
        rates.append(tasks / (time.perf_counter() - began))
    ray.shutdown()
    print(json.dumps({"tasks_per_s": statistics.median(rates), "rounds": rates}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
