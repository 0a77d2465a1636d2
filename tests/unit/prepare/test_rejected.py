"""The table of files that cannot be used."""

from speechbrain_ssl.prepare.rejected import rejected_table, write_rejected


def test_rejected_is_written_without_rows(tmp_path):
    write_rejected(tmp_path / "rejected.csv", rejected_table([]))
    text = (tmp_path / "rejected.csv").read_text()
    assert text == "wav,reason,detail\n"
