"""A progress bar with time left: on stderr, or into the pipe named by `LT_PROGRESS` when a driver shows it."""

import os
import sys
from pathlib import Path
from typing import Self

from tqdm import tqdm


class Progress:
    """Counts network-steps of `trainings` trainings."""

    def __init__(self, work: int, trainings: int) -> None:
        pipe = os.environ.get("LT_PROGRESS")
        self._file = Path(pipe).open("w", buffering=1) if pipe and work else sys.stderr  # noqa: SIM115
        self._bar = tqdm(
            total=work,
            disable=not work,
            file=self._file,
            unit="step",
            unit_scale=True,
            leave=not pipe,
            desc=f"{trainings} trainings",
            mininterval=0.5,
            dynamic_ncols=False,
            ncols=88,
        )

    def advance(self, steps: int) -> None:
        """Hear of `steps` more network-steps."""
        self._bar.update(steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._file is not sys.stderr:
            self._file.close()
