"""The inverse of one matrix that no process holds whole, and its gradient, on several processes.

    python several_processes.py               two processes on this machine, over loopback
    python several_processes.py 4 --n 1000

On a cluster, start `worker` once on each host, with the address of the first: the rest is the same. JAX finds the
address by itself where Slurm, MPI or a cloud TPU starts the processes; collectives between CPUs go through gloo.

A process that dies ends the others too: its neighbours in a collective fail at once, and what hears nothing of it for
HEARTBEAT seconds is ended by JAX. `main` stops all that are left as soon as one has failed.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np

HEARTBEAT = 20  # seconds
STARTUP = 60  # seconds for all processes to find each other


def entries(n, index):
    """Those at the index, two slices, of the matrix: of condition 3 or so, and every pivot lies off the diagonal."""
    i, j = np.arange(n)[index[0], None], np.arange(n)[index[1]]
    return 2.0 * ((i - j) % n == n // 2) + np.sin((i + 1) * (j + 1) ** 1.5) / np.sqrt(n)


def worker(address, processes, index, n):
    """What each process runs."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, processes, index, initialization_timeout=STARTUP, heartbeat_timeout_seconds=HEARTBEAT
    )
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    import jaxinv

    mesh = jax.make_mesh((jax.device_count(),), ("x",))
    columns = NamedSharding(mesh, PartitionSpec(None, "x"))
    X = jax.make_array_from_callback((n, n), columns, partial(entries, n))
    if os.environ.get("DIE_IN_PROCESS") == str(index):
        os._exit(1)

    @jax.jit
    def loss_and_gradient(X):
        def loss(X):
            Y, residual = jaxinv.inv_sharded(X, residual=True)
            return jnp.sum(Y**2), (Y, residual)

        return jax.value_and_grad(loss, has_aux=True)(X)

    (loss, (Y, residual)), X_bar = loss_and_gradient(X)
    held = sum(shard.data.size for shard in Y.addressable_shards)
    print(
        f"process {index} of {processes}: holds {held} of {n * n} entries, "
        f"residual {float(residual):.1e}, loss {float(loss):.12g}",
        flush=True,
    )
    if "SAVE_TO" in os.environ:
        for name, array in (("Y", Y), ("X_bar", X_bar)):
            for shard in array.addressable_shards:
                start = shard.index[1].start or 0
                np.save(os.path.join(os.environ["SAVE_TO"], f"{name}-{start:06}.npy"), np.asarray(shard.data))
    jax.distributed.shutdown()


def main():
    """Start the processes, and stop them all if one fails."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("processes", type=int, nargs="?", default=2)
    options.add_argument("--n", type=int, default=600, help="a multiple of the number of processes")
    options.add_argument("--worker", nargs=2, metavar=("ADDRESS", "INDEX"), help="be one of the processes")
    options = options.parse_args()
    if options.n % options.processes:
        sys.exit(f"--n must be a multiple of the number of processes, {options.processes}, got {options.n}")
    if options.worker:
        worker(options.worker[0], options.processes, int(options.worker[1]), options.n)
        return 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, __file__, str(options.processes), "--n", str(options.n), "--worker", address]
    running = [subprocess.Popen([*command, str(index)]) for index in range(options.processes)]
    try:
        while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
            time.sleep(0.1)
    finally:
        for process in running:
            process.kill() if process.poll() is None else None
    return max(abs(process.wait()) for process in running)


if __name__ == "__main__":
    sys.exit(main())
