"""Every configuration of every recipe is listed, consistent, and runs."""

import json
import pathlib
import re
import shutil
import sys

import pandas as pd
import pytest
import tiny
import tiny_faces

from speechbrain_ssl.config import check_keys
from speechbrain_ssl.config_base import merge
from speechbrain_ssl.errors import ConfigError

ROOT = tiny.ROOT


def table():
    """Return all rows of ``tests/recipes``."""
    files = sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    parts = [pd.read_csv(f, keep_default_na=False) for f in files]
    return pd.concat(parts).to_dict("records")


ROWS = table()
RUNNABLE = [row for row in ROWS if row["test_debug_flags"]]
# One row with a report is enough for each script and corpus.
IN_SHELL = [r for r in RUNNABLE if "report.html" in r["test_debug_checks"]]
IN_PROCESS = [row for row in RUNNABLE if row not in IN_SHELL]


def name_of(row):
    path = pathlib.PurePosixPath(row["Hparam_file"])
    return f"{path.parts[1]}-{path.stem}"


def test_every_configuration_is_listed():
    listed = {row["Hparam_file"] for row in ROWS}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "recipes").glob("*/*/hparams/*.yaml")
    }
    assert there == listed


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_files_of_a_row_exist(row):
    for key in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert not row[key] or (ROOT / row[key]).is_file(), row[key]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_key_is_read(row):
    """No key of a configuration is misspelt, missing or unused."""
    path = ROOT / row["Hparam_file"]
    script = (ROOT / row["Script_file"]).read_text(encoding="utf-8")
    known = set(re.search(r'"""([^"]*)"""\.split', script).group(1).split())
    merged = merge(path)
    check_keys(merged, {}, known)
    # This row passes, and a key that nothing reads would be noticed.
    with pytest.raises(ConfigError, match="lacks the key `lacking_key`"):
        check_keys(merged, {}, known | {"lacking_key"})
    idle = merged._replace(
        text=merged.text + "\nidle_key: 1\n",
        sources={**merged.sources, "idle_key": str(path)},
    )
    with pytest.raises(
        ConfigError, match="`idle_key` in .* not read by anything"
    ):
        check_keys(idle, {}, known)


def test_no_blank_is_left_to_fill_in():
    """No file contains a mark that stands for a missing figure."""
    marks = re.compile(r"@[A-Z_]{3,}@|# EXPECT\b|TODO|FIXME")
    for pattern in ("**/*.md", "recipes/**/*.yaml", "hparams/**/*.yaml"):
        for path in ROOT.glob(pattern):
            if not {".venv", "exp"} & set(path.parts):
                assert not marks.search(path.read_text("utf-8")), path


def arguments(row, corpus, model, output):
    """Return the debug flags of a row, with all names replaced."""
    manifests = output.with_name("manifests")
    manifests.mkdir()
    shutil.copy(corpus.train_csv, manifests / "train.csv")
    for name in ("noise", "music", "speech"):
        shutil.copy(corpus.noise_csv, manifests / f"{name}.csv")
    shutil.copy(corpus.rirs_csv, manifests / "rirs.csv")
    speakers = pd.read_csv(corpus.train_csv)
    speakers["spk_id"] = speakers["ID"].str.split("-").str[0]
    speakers[["ID", "spk_id"]].to_csv(manifests / "speakers.csv", index=False)
    flags = row["test_debug_flags"].format(
        corpus=corpus.audio,
        manifests=manifests,
        output=output,
        trials=corpus.trials,
        model=model,
        speakers=manifests / "speakers.csv",
        faces=tiny_faces.export_faces(output.with_name("faces")),
    )
    yaml = str(ROOT / row["Hparam_file"])
    return [yaml, f"--output_folder={output}", *flags.split()]


def check(row, output):
    """Assert that the files that a row asks for exist."""
    checks = row["test_debug_checks"]
    names = re.search(r"file_exists=\[([^\]]*)\]", checks).group(1)
    for name in names.split(","):
        assert (output / name).stat().st_size > 0, name
    limit = re.search(r"performance_check=\[(\w+),<([\d.]+)\]", checks)
    if limit:
        results = json.loads((output / "results.json").read_text())
        assert results[limit.group(1)] < float(limit.group(2))


@pytest.mark.slow
@pytest.mark.parametrize("row", IN_SHELL, ids=name_of)
def test_a_row_runs_as_its_flags_say(row, corpus, ssl_model, tmp_path):
    """Run the debug flags of a row in a shell, as a user does."""
    output = tmp_path / "output"
    script = str(ROOT / row["Script_file"])
    argv = arguments(row, corpus, ssl_model, output)
    status, stderr = tiny.shell([sys.executable, script, *argv], timeout=300)
    assert status == 0, stderr[-3000:]
    check(row, output)


@pytest.mark.slow
@pytest.mark.parametrize("row", IN_PROCESS, ids=name_of)
def test_a_row_without_report_runs(row, corpus, no_report, tmp_path):
    """Run in this process, without a report, which saves time."""
    output = tmp_path / "output"
    train = tiny.load_train(ROOT / row["Script_file"])
    train.main([*arguments(row, corpus, None, output), "--noprogressbar"])
    check(row, output)
