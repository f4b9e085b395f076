"""What both panels share: work in a thread, with a bar and a button that ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from magicgui.widgets import ComboBox, Container, Label, ProgressBar, PushButton, Select, Widget
from napari.qt.threading import GeneratorWorker

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """What a button starts.

    Attributes:
        work: Runs in a thread. It tells what is done, of how much, and is ended by what it calls.
        show: Takes its result, in the window.
    """

    work: Callable[[Report], Any]
    show: Callable[[Any], None]


class _CancelledError(Exception):
    pass


class _Worker(GeneratorWorker):
    """A thread that ends the processes it waits for, as napari does when its window is closed."""

    def __init__(self, job: Job, stop: Callable[[], None]) -> None:
        self._job, self._stop_processes = job, stop
        super().__init__(self._steps)

    def quit(self) -> None:
        super().quit()
        self._stop_processes()

    def _steps(self) -> Any:
        yield 0, 0, "loading the model …"
        try:
            return self._job.work(self._report)
        except RuntimeError as error:  # Which a thread of napari would only warn of.
            raise OSError(str(error)) from error

    def _report(self, *step: Any) -> None:
        self.yielded.emit(step)
        if self.abort_requested:
            raise _CancelledError


class Panel(Container):
    """A form, a button that starts work in a thread, and what the work says.

    Args:
        fields: The form.
        action: What the button says.
        prepare: Reads the form when the button is pressed; what it says in a `ValueError` is shown.
        stop: Ends the processes of the panel; called when the work is cancelled, or the panel
            closed.

    Attributes:
        start: The button that starts the work.
        cancel: The button that ends it.
        progress: The bar.
        status: A line of text: what is done, what was found, or what is wrong.
    """

    def __init__(
        self,
        fields: Sequence[Widget],
        action: str,
        prepare: Callable[[], Job],
        stop: Callable[[], None],
    ) -> None:
        self._prepare, self._stop = prepare, stop
        self.start = PushButton(text=action)
        self.cancel = PushButton(text="Cancel", enabled=False)
        self.progress = ProgressBar(value=0, min=0, max=1, label="")
        self.status = Label(value="")
        buttons = Container(
            widgets=[self.start, self.cancel], layout="horizontal", labels=False, label=""
        )
        super().__init__(widgets=[*fields, buttons, self.progress, self.status])
        self.status.native.setWordWrap(True)
        self.progress.visible = False
        self._worker: _Worker | None = None
        self.start.changed.connect(self._begin)
        self.cancel.changed.connect(self._end)
        # The window is closed, or the panel taken out of it.
        self.native.destroyed.connect(self._leave)
        self.native_parent_changed.connect(self._move)

    def reset_choices(self, *_: Any) -> None:
        """Read the lists of layers anew; what is chosen stays, also under another name."""
        chosen = [(one, one.value) for one in self if isinstance(one, (ComboBox, Select))]
        super().reset_choices()
        for field, value in chosen:
            with contextlib.suppress(ValueError):  # The layer is gone.
                field.value = value

    def _begin(self) -> None:
        try:
            job = self._prepare()
        except ValueError as error:
            self.status.value = str(error)
            return
        worker = self._worker = _Worker(job, self._stop)
        worker.yielded.connect(self._tell)
        worker.returned.connect(job.show)
        worker.errored.connect(self._fail)
        worker.finished.connect(self._rest)
        self.start.enabled, self.cancel.enabled, self.progress.visible = False, True, True
        worker.start()

    def _tell(self, step: tuple[int, int, str]) -> None:
        done, total, self.status.value = step
        self.progress.max = total  # Of 0: it is not known how much there is to do.
        self.progress.value = done

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.quit()

    def _move(self, parent: Any) -> None:
        if parent is None:
            self._leave()

    def _leave(self) -> None:
        if self._worker is not None:
            for signal in ("yielded", "returned", "errored", "finished"):
                getattr(self._worker, signal).disconnect()
            self._worker.quit()
            self._worker = None
        self._stop()

    def _fail(self, error: Exception) -> None:
        self.status.value = " ".join(str(error).split()) or type(error).__name__

    def _rest(self) -> None:
        if self._worker is not None and self._worker.abort_requested:
            self.status.value = "cancelled"
        self._worker = None
        self.start.enabled, self.cancel.enabled, self.progress.visible = True, False, False
