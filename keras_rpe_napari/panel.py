"""What both panels share: work in a thread, with a bar and a button that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from magicgui.widgets import Container, Label, ProgressBar, PushButton, Widget
from napari import Viewer
from napari.qt.threading import GeneratorWorker

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """What a button starts.

    Attributes:
        work: Runs in a thread, and tells what is done, of how much.
        show: Takes its result, in the window.
        stop: Ends the work, from another thread.
    """

    work: Callable[[Report], Any]
    show: Callable[[Any], None]
    stop: Callable[[], None]


class Panel(Container):
    """A form, a button that starts work in a thread, and what the work says.

    Args:
        viewer: The window that the panel is part of.
        fields: The form.
        action: What the button says.
        prepare: Reads the form when the button is pressed; what it says in a `ValueError` is shown.

    Attributes:
        start: The button that starts the work.
        cancel: The button that ends it.
        progress: The bar.
        status: A line of text: what is done, what was found, or what is wrong.
    """

    def __init__(
        self, viewer: Viewer, fields: Sequence[Widget], action: str, prepare: Callable[[], Job]
    ) -> None:
        self.viewer = viewer
        self._prepare = prepare
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
        self._worker: GeneratorWorker | None = None
        self.native.destroyed.connect(self._end)
        self.start.changed.connect(self._begin)
        self.cancel.changed.connect(self._end)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(lambda: self.reset_choices())

    def _begin(self) -> None:
        try:
            job = self._prepare()
        except ValueError as error:
            self.status.value = str(error)
            return

        def steps() -> Any:
            yield 0, 0, "loading the model …"
            return job.work(lambda *step: worker.yielded.emit(step))

        worker = GeneratorWorker(steps)
        self._worker, self._stop = worker, job.stop
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
            self._stop()

    def _fail(self, error: Exception) -> None:
        cancelled = self._worker is not None and self._worker.abort_requested
        self.status.value = "cancelled" if cancelled else " ".join(str(error).split())

    def _rest(self) -> None:
        self._worker = None
        self.start.enabled, self.cancel.enabled, self.progress.visible = True, False, False
