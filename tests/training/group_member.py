"""One process of a training, watched: python group_member.py RECIPE.JSON LOGS [FAULT RANK NUM_SAMPLES].

In LOGS/<rank> stands one line a training sample that this process took and one line a file or folder that it put in place.
Process RANK meets with FAULT (kill, term or error) when it takes its sample NUM_SAMPLES.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workbench.training import job
from workbench.training.loading import TrainingImages
from workbench.training.sampling import Sample


def main(recipe: str, logs: str, fault: str = "", rank: str = "", num_samples: str = "0") -> None:
    """Trains what the file says, as `python -m workbench.training.loop` does."""
    own = os.environ["RANK"]
    Path(logs).mkdir(exist_ok=True)
    log = open(Path(logs) / own, "a", buffering=1)  # noqa: SIM115
    take, taken = TrainingImages.__getitem__, 0

    def watched(images: TrainingImages, sample: Sample) -> tuple[np.ndarray, int]:
        nonlocal taken
        if images.augmentation is not None:
            taken += 1
            print("sample", *sample, file=log)
            if rank == own and taken == int(num_samples):
                if fault == "error":
                    raise OSError("the disk of this host is gone")
                os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGTERM)
        return take(images, sample)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(Path(recipe).parent) in str(arguments[1]):
            print("file", Path(arguments[1]).name, file=log)

    TrainingImages.__getitem__ = watched  # type: ignore[method-assign]
    sys.addaudithook(heard)
    job.main([recipe])


if __name__ == "__main__":
    main(*sys.argv[1:])
