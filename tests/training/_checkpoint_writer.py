"""Saves step 1, then is killed by SIGKILL while the save of step 2 is being written.

python _checkpoint_writer.py DIRECTORY
"""

import os
import pathlib
import signal
import sys

import jax.numpy as jnp
import numpy as np

from gm_jax.training.checkpoint import Checkpointer


def main(directory: pathlib.Path) -> None:
    noise = np.random.default_rng(0).standard_normal((4, 1 << 22), np.float32)  # 64 MB that do not compress
    checkpointer = Checkpointer(directory)
    checkpointer.save(1, {"w": jnp.asarray(noise)})
    checkpointer.wait()
    checkpointer.save(2, {"w": jnp.asarray(noise + 1)})
    while not list(directory.glob("2.orbax-checkpoint-tmp*")):  # Orbax makes the folder in its own time
        if (directory / "2").exists():
            sys.exit("the save was over before it could be cut off")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
