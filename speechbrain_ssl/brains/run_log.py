"""Write the logs of a training run: ``metrics.jsonl`` and ``train_log.txt``."""

import logging
import pathlib

from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl.brains.means import RunningMeans
from speechbrain_ssl.report.logbook import Logbook

logger = logging.getLogger(__name__)


class RunLog:
    """Collects the scalars of training steps and writes their means.

    The means are taken over processes, so all of them call every method
    (``write_trials`` excepted); rank 0 writes.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        The folder of the run.
    """

    def __init__(self, output_folder):
        # The import warns that torchvision is missing, which nothing here needs.
        logging.getLogger("speechbrain.utils.train_logger").addFilter(
            lambda record: "torchvision" not in record.getMessage()
        )
        from speechbrain.utils.train_logger import FileTrainLogger

        self.logbook = Logbook(output_folder)
        self.train_logger = FileTrainLogger(
            str(pathlib.Path(output_folder) / "train_log.txt")
        )
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
            self.logbook.rewind(step)

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
            Name -> value at the end of the epoch. ``pseudo_eer`` (in percent),
            ``lidar``, ``rankme`` and ``minutes`` must be among them.
        """
        logger.info(
            "epoch %d: loss %.4f, pseudo-EER %.2f %%, LiDAR %.1f, RankMe %.1f, "
            "%.1f minutes",
            epoch,
            loss,
            scalars["pseudo_eer"],
            scalars["lidar"],
            scalars["rankme"],
            scalars["minutes"],
        )
        self.train_logger.log_stats(
            {"epoch": epoch, "lr": lr},
            train_stats={"loss": loss},
            valid_stats=scalars,
            verbose=False,
        )
        if if_main_process():
            self.logbook.log("valid", epoch, step, **scalars)

    def write_trials(self, epoch, step, name, eer):
        """Write the EER of a trial list, in percent; call it on rank 0 only."""
        logger.info("epoch %d: %s EER %.2f %%", epoch, name, eer)
        self.logbook.log("trials", epoch, step, eer=eer)
