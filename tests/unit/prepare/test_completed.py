"""A preparation is complete while arguments and outputs are the same."""

from speechbrain_ssl.prepare.completed import completed, mark_completed


def test_completed(tmp_path):
    arguments = {"min_duration": 1.0}
    assert completed(tmp_path, arguments) is None
    (tmp_path / "train.csv").write_text("x")
    (tmp_path / "noise.csv").write_text("y")
    mark_completed(tmp_path, arguments, ["train.csv", "noise.csv"], {"n": 1})
    assert completed(tmp_path, arguments) == {"n": 1}
    assert completed(tmp_path, {"min_duration": 2.0}) is None
    # An output of another configuration goes, unless it was edited.
    mark_completed(tmp_path, arguments, ["train.csv"], {"n": 2})
    assert not (tmp_path / "noise.csv").exists()
    (tmp_path / "train.csv").write_text("edited")
    assert completed(tmp_path, arguments) is None
    # A folder of converted files is missed, and is kept by others.
    (tmp_path / "decoded").mkdir()
    mark_completed(tmp_path, arguments, ["decoded"], {"n": 3})
    assert completed(tmp_path, arguments) == {"n": 3}
    (tmp_path / "decoded").rmdir()
    assert completed(tmp_path, arguments) is None
    (tmp_path / "decoded").mkdir()
    mark_completed(tmp_path, arguments, [], {"n": 4})
    assert (tmp_path / "decoded").is_dir()
    (tmp_path / "prepare.json").write_text("{torn")
    assert completed(tmp_path, arguments) is None
