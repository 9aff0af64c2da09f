"""A progress bar with time left: on stderr, or into the pipe named by `LT_PROGRESS` when a driver shows it."""

import os
import sys
from pathlib import Path
from typing import ClassVar, Self

from tqdm import tqdm


class Progress:
    """Counts network-steps."""

    _open: ClassVar[list["Progress"]] = []

    def __init__(self, work: int, description: str) -> None:
        pipe = os.environ.get("LT_PROGRESS")
        self._file = Path(pipe).open("w", buffering=1) if pipe and work else sys.stderr  # noqa: SIM115
        self._bar = tqdm(
            total=work,
            disable=not work,
            file=self._file,
            unit="step",
            unit_scale=True,
            leave=not pipe,
            desc=description,
            mininterval=0.5,
            dynamic_ncols=False,
            ncols=88,
        )

    @classmethod
    def current(cls) -> "Progress":
        """The one that is open; in a worker process, one that shows nothing."""
        return cls._open[-1] if cls._open else cls(0, "")

    def advance(self, steps: int) -> None:
        """Hear of `steps` more network-steps."""
        self._bar.update(steps)

    def say(self, sentence: str) -> None:
        """A line above the bar; none if there is nothing to do."""
        if not self._bar.disable:
            self._bar.write(sentence, file=self._file)

    def __enter__(self) -> Self:
        self._open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.remove(self)
        self._bar.close()
        if self._file is not sys.stderr:
            self._file.close()


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h", "1,200 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"
