"""What an evaluation leaves behind: text, scalars, tables."""

import csv

from speechbrain_ssl.report.evaluations import (
    evaluations_text,
    flat_figures,
    write_rows,
)


def test_text_has_calibrated_columns_only_where_something_is():
    row = {"list": "O", "scoring": "as_norm", "trials": 9, "ci_low": 1.0}
    row |= {"eer_percent": 5.0, "min_dcf_0.01": 0.5, "min_dcf_0.05": 0.25}
    row["ci_high"] = 9.0
    text = evaluations_text([row])
    assert "5.00 [1.00, 9.00]" in text and "as norm" in text
    assert "Cllr" not in text
    more = {**row, "cllr": 0.4, "min_cllr": 0.3}
    more |= {"act_dcf_0.01": 0.7, "act_dcf_0.05": 0.6}
    lines = evaluations_text([row, more]).splitlines()
    assert lines[0].endswith("Cllr (min)     actDCF 0.01  actDCF 0.05")
    assert lines[1].endswith("0.250")
    assert lines[2].endswith("0.400 (0.300)  0.700        0.600")


def test_scalars_name_list_and_scoring():
    row = {"list": "O", "scoring": "cosine", "eer_percent": 5.0, "ci_low": 4.0}
    row |= {"ci_high": 6.0, "min_dcf_0.01": 0.5, "min_dcf_0.05": 0.25}
    other = {**row, "scoring": "plda", "eer_percent": 4.0}
    flat = flat_figures([row, other])
    assert flat["eer"] == flat["eer_O"] == 5.0
    assert flat["eer_O_plda"] == 4.0 and flat["eer_O_plda_ci_low"] == 4.0
    assert "eer_O" not in flat_figures([row])


def test_rows_are_rounded_and_cut_to_their_columns(tmp_path):
    rows = [{"a": 0.123456, "b": None, "c": 1}, {"a": "x", "b": 2}]
    write_rows(tmp_path / "t.csv", ["a", "b"], rows)
    with open(tmp_path / "t.csv", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert found == [{"a": "0.1235", "b": ""}, {"a": "x", "b": "2"}]
