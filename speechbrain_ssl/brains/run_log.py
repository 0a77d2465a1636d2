"""Write the logs of a training run: ``metrics.jsonl`` and ``train_log.txt``."""

import logging
import pathlib
import time

from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.brains.progress_line import epoch_line, further_logger
from speechbrain_ssl.report.logbook import Logbook, read_metrics
from speechbrain_ssl.report.page import build_report

logger = logging.getLogger(__name__)

#: Seconds after which ``report.html`` is written again; drawing it takes 0.4 s.
PAGE_INTERVAL = 10.0


class RunLog:
    """Collects the scalars of training steps and writes their means.

    The means are taken over processes, so all of them call every method
    (``write_trials`` excepted); rank 0 writes.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run.
    epochs : int
        How many epochs the run has.
    train_logger : str, optional
        See ``further_logger``.
    """

    def __init__(self, output_folder, epochs, train_logger=None):
        # The import warns that torchvision is missing, which nothing here needs.
        logging.getLogger("speechbrain.utils.train_logger").addFilter(
            lambda record: "torchvision" not in record.getMessage()
        )
        from speechbrain.utils.train_logger import FileTrainLogger

        self.logbook = Logbook(output_folder)
        self.folder = pathlib.Path(output_folder)
        self.epochs = epochs
        self.train_loggers = [
            FileTrainLogger(str(self.folder / "train_log.txt"))
        ]
        if train_logger is not None:
            self.train_loggers.append(further_logger(train_logger, self.folder))
        self._before = None
        self._page_written = time.monotonic()
        self._window, self._epoch = RunningMeans(), RunningMeans()
        #: Mean loss of the last line of ``write_steps``.
        self.loss = float("nan")

    def add(self, **scalars):
        """Add the scalars of a step."""
        self._window.add(**scalars)
        self._epoch.add(**scalars)

    def begin_epoch(self):
        """Discard the means of the previous epoch."""
        self._epoch.reset()

    def epoch_means(self):
        """Return the means of the epoch so far, over all processes."""
        return self._epoch.read()

    def state(self):
        """Return the unfinished means, for a checkpoint."""
        return {"window": self._window.state(), "epoch": self._epoch.state()}

    def resume(self, state, step):
        """Restore the means from a checkpoint, and cut off later log lines.

        Arguments
        ---------
        state : dict or None
            What ``state`` returned; None if there is no checkpoint.
        step : int
            The optimiser step that training resumes at. Log lines of later
            steps are removed, since these steps are trained again.
        """
        if state is not None:
            self._window.load(state["window"])
            self._epoch.load(state["epoch"])
        if if_main_process():
            # A run that starts anew writes its start again, too.
            self.logbook.rewind(step or -1)
            for line in read_metrics(self.logbook.path) if step else []:
                self._before = line.get("pseudo_eer", self._before)

    def write_steps(self, epoch, step, scheduled):
        """Write a line with the means since the last call.

        Arguments
        ---------
        epoch, step : int
            Where training stands.
        scheduled : dict
            Name -> scheduled value at the last step.
        """
        means = self._window.read()
        self._window.reset()
        self.loss = means.get("loss", self.loss)
        if means and if_main_process():
            self.logbook.log("train", epoch, step, **means, **scheduled)

    def write_start(self, scalars):
        """Write the label-free metrics of the encoder before training."""
        self._before = scalars["pseudo_eer"]
        if if_main_process():
            self.logbook.log("start", 0, 0, **scalars)

    def write_epoch(self, epoch, step, loss, lr, scalars):
        """Write the line of an epoch to every log.

        Arguments
        ---------
        epoch, step : int
            Where training stands.
        loss : float
            Mean loss of the epoch.
        lr : float
            Learning rate of the last step.
        scalars : dict
            Name -> value at the end of the epoch. ``pseudo_eer`` (in percent)
            and ``minutes`` must be among them.
        """
        eer, minutes = scalars["pseudo_eer"], scalars["minutes"]
        logger.info(
            epoch_line(epoch, self.epochs, loss, eer, self._before, minutes)
        )
        self._before = eer
        for train_logger in self.train_loggers:
            train_logger.log_stats(
                {"epoch": epoch, "lr": lr},
                train_stats={"loss": loss},
                valid_stats=scalars,
                verbose=False,
            )
        if if_main_process():
            self.logbook.log("valid", epoch, step, **scalars)

    def write_page(self, schedules):
        """Write ``report.html`` as far as it is; call it on rank 0 only."""
        if time.monotonic() - self._page_written >= PAGE_INTERVAL:
            build_report(self.folder, schedules=schedules)
            self._page_written = time.monotonic()

    def write_trials(self, epoch, step, name, eer):
        """Write the EER of a trial list, in percent; call it on rank 0 only."""
        logger.info("epoch %d: %s EER %.2f %%", epoch, name, eer)
        self.logbook.log("trials", epoch, step, eer=eer)
