"""Take pictures out of the videos of VoxCeleb2, which show faces alone.

    python voxceleb_frames.py --mp4_folder=/path/to/corpora/vox2/dev/mp4 \
        --faces_folder=/path/to/corpora/unzippedFaces

``<speaker>/<video>/<utterance>.mp4`` becomes the folder
``<speaker>/<video>/<utterance>`` of pictures, where ``voxceleb_faces_prepare.py``
finds them. An interrupted call is completed by the same command.
"""

import argparse
import functools
import logging
import os
import pathlib
import shutil
import sys

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.files import write_csv
from speechbrain_ssl.prepare.av_decoder import INSTALL, has_pyav
from speechbrain_ssl.prepare.prepare_script import run_parsed
from speechbrain_ssl.prepare.workers import default_workers, finish_jobs
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)

REJECTED_CSV = "rejected_videos.csv"


def extract_frames(mp4_folder, faces_folder, pictures=8, num_workers=None):
    """Write evenly spread frames of all videos below a folder.

    Arguments
    ---------
    mp4_folder : str
        Folder of the videos.
    faces_folder : str
        Folder for the pictures, and for ``rejected_videos.csv``.
    pictures : int
        Number of frames of each video; all of a shorter one.
    num_workers : int, optional
        Number of processes; one per core by default.

    Returns
    -------
    dict
        ``videos`` (read by this call) and ``rejected``: numbers.

    Raises
    ------
    UserError
        If there is no video, or PyAV is not installed.
    """
    check_int("extract_frames", "pictures", pictures, least=1)
    if not has_pyav():
        raise UserError(f"PyAV is needed to decode videos: {INSTALL}")
    root = pathlib.Path(mp4_folder)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.mp4"))
    if not names:
        raise UserError(
            f"there is no mp4 file below {root}; give the folder that holds "
            "<speaker>/<video>/<utterance>.mp4 as mp4_folder"
        )
    jobs = [
        (name,)
        for name in names
        if not (pathlib.Path(faces_folder) / name[: -len(".mp4")]).is_dir()
    ]
    read = functools.partial(
        extract,
        mp4_folder=str(root),
        faces_folder=str(faces_folder),
        pictures=pictures,
    )
    workers = default_workers() if num_workers is None else num_workers
    rejected = []
    with open_bar(total=len(jobs), desc="frames", unit="video") as bar:
        for (name,), reason in finish_jobs(
            read, jobs, workers if workers > 1 else 0
        ):
            rejected += [(name, reason)] if reason else []
            bar.update(1)
    write_csv(
        pathlib.Path(faces_folder) / REJECTED_CSV,
        pd.DataFrame(sorted(rejected), columns=["video", "reason"]),
    )
    logger.info(
        "%d videos read; %d cannot be, see %s",
        len(jobs) - len(rejected),
        len(rejected),
        pathlib.Path(faces_folder) / REJECTED_CSV,
    )
    return {"videos": len(jobs) - len(rejected), "rejected": len(rejected)}


def extract(name, mp4_folder, faces_folder, pictures):
    """Write the frames of one video; return why it cannot be read, or None."""
    import av

    try:
        with av.open(os.path.join(mp4_folder, name)) as container:
            # Clips are short, and few of their frames can be sought.
            frames = [f.to_image() for f in container.decode(video=0)]
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    if not frames:
        return "it has no frame"
    places = np.linspace(0, len(frames) - 1, min(pictures, len(frames)))
    folder = pathlib.Path(faces_folder) / name[: -len(".mp4")]
    # Renamed when it is whole.
    begun = folder.with_name(f".{folder.name}")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    for place in places.round().astype(int):
        frames[place].save(begun / f"{place:05d}.jpg", quality=95)
    begun.rename(folder)
    return None


def main(argv=None):
    """Take the frames from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--mp4_folder", required=True, help="Folder of the videos.")
    add("--faces_folder", required=True, help="Folder for the pictures.")
    add("--pictures", type=int, default=8, help="Frames of each video.")
    add("--num_workers", type=int, help="Processes (default: one per core).")
    return run_parsed(extract_frames, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
