"""The command line of a preparation explains what the user can mend."""

import errno

import pytest

from speechbrain_ssl.prepare import prepare_script


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_traceback(number, capsys):
    parser = prepare_script.make_parser("Test.", "data")

    def prepare(**options):
        raise OSError(number, "no room", "train.csv")

    argv = ["--data_folder=a", "--save_folder=b"]
    assert prepare_script.run_parsed(prepare, parser, argv) == 1
    said = capsys.readouterr().err
    assert "no space is left" in said and "train.csv" in said
    assert "make room and start the same command again" in said


def test_other_errors_of_the_system_are_raised():
    parser = prepare_script.make_parser("Test.", "data")

    def prepare(**options):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        prepare_script.run_parsed(
            prepare, parser, ["--data_folder=a", "--save_folder=b"]
        )
