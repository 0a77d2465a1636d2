"""Which precision a run computes in, on either kind of processor."""

import json
import logging

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl import precision
from speechbrain_ssl.errors import ConfigError


def options(*flags):
    """Run options of a command line."""
    return RunOptions.from_command_line_args(["a.yaml", *flags])[1]


def settled(*flags, **hparams):
    """The precisions of a CPU run."""
    hparams = {"precision": "auto", "eval_precision": "auto", **hparams}
    run_opts = options("--device=cpu", *flags)
    precision.settle(hparams, run_opts)
    if "output_folder" in hparams:
        # As every start of a training script does.
        precision.keep(hparams)
        precision.resume(hparams, run_opts)
    return hparams


@pytest.fixture(params=["1", "0"], ids=["native", "emulated"])
def native(request, monkeypatch):
    """Both kinds of processor, one after the other."""
    monkeypatch.setenv(precision.VARIABLE, request.param)
    return request.param == "1"


@pytest.fixture
def asked(monkeypatch):
    """``asked(**answers)``: what torch says of the processor."""
    monkeypatch.delenv(precision.VARIABLE, raising=False)

    def answer(onednn, avx512=False, amx=False, machine="x86_64"):
        class Ops:
            @staticmethod
            def _is_mkldnn_bf16_supported():
                if onednn is None:
                    raise AttributeError("no such operator")
                return onednn

        monkeypatch.setattr(precision.platform, "machine", lambda: machine)
        monkeypatch.setattr(torch.ops, "mkldnn", Ops)
        for name, value in (("avx512_bf16", avx512), ("amx_tile", amx)):
            query = f"_is_{name}_supported"
            if value is None:
                monkeypatch.delattr(torch.cpu, query, raising=False)
            else:
                monkeypatch.setattr(
                    torch.cpu, query, lambda v=value: v, raising=False
                )
        return precision.cpu_has_bf16()

    return answer


def test_the_processor_is_asked(asked):
    assert asked(True, avx512=True)
    assert asked(True, amx=True)
    # AVX512 without bf16: oneDNN takes bf16 and emulates it.
    assert not asked(True)
    assert not asked(False, avx512=True)
    assert asked(True, machine="aarch64")
    assert not asked(False, machine="aarch64")


def test_a_torch_that_does_not_answer_means_no(asked):
    assert not asked(None, avx512=True)
    assert not asked(True, avx512=None, amx=None)


def test_the_variable_overrides_the_processor(native):
    assert precision.cpu_has_bf16() == native


def test_a_variable_of_another_value(monkeypatch):
    monkeypatch.setenv(precision.VARIABLE, "yes")
    with pytest.raises(ConfigError, match="NATIVE_BF16 is 'yes'.* 0 or 1"):
        precision.cpu_has_bf16()


def test_auto_follows_the_processor(native):
    found = settled()
    wanted = "bf16" if native else "fp32"
    assert found["precision"] == found["eval_precision"] == wanted
    reason = precision.describe(found)["precision"]
    assert reason.startswith(f"{wanted} (auto: this CPU ")
    assert ("emulate" in reason) != native


@pytest.mark.parametrize("has_bf16, wanted", [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu(monkeypatch, has_bf16, wanted):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16
    )
    assert precision.best_precision("cuda:1")[0] == wanted


def test_auto_on_what_was_never_tried():
    assert precision.best_precision("mps")[0] == "fp32"


def test_what_is_configured_stands(native):
    found = settled(precision="bf16", eval_precision="fp32")
    assert (found["precision"], found["eval_precision"]) == ("bf16", "fp32")
    assert precision.describe(found)["precision"] == "bf16 (as configured)"


def test_the_command_line_wins(native):
    found = settled("--precision=fp32", precision="bf16")
    assert found["precision"] == "fp32"
    assert found["precision_reasons"]["precision"] == "as the command line says"


def test_what_is_not_configured_is_not_decided(native):
    """The probe of the emotion recipes trains in no precision."""
    hparams = {"eval_precision": "auto"}
    precision.settle(hparams, options("--device=cpu"))
    assert "precision" not in hparams
    assert list(precision.describe(hparams)) == ["eval_precision"]


def test_emulated_bf16_works_and_says_how_slow_it_is(native, caplog):
    found = settled("--precision=bf16")
    with caplog.at_level(logging.WARNING):
        precision.announce(found, options("--device=cpu"))
    assert found["precision"] == "bf16"
    assert ("11 times" in caplog.text) != native


def test_what_cannot_be(native):
    with pytest.raises(ConfigError, match="`precision` is 'fp8'.*auto or one"):
        settled(precision="fp8")
    with pytest.raises(ConfigError, match="`eval_precision` is fp16.*CPU"):
        settled("--eval_precision=fp16")


def begin(folder, trace="save/checkpoints/CKPT+1"):
    """Leave what a run leaves that has begun."""
    (folder / trace).mkdir(parents=True)


@pytest.mark.parametrize(
    "trace", ["save/checkpoints/CKPT+1", "save/fold_1/CKPT+1", "round_1"]
)
def test_a_resumed_run_keeps_its_precision(
    native, monkeypatch, tmp_path, trace
):
    """On the other kind of processor, too."""
    began = settled(output_folder=str(tmp_path))
    begin(tmp_path, trace)
    monkeypatch.setenv(precision.VARIABLE, "0" if native else "1")
    found = settled(output_folder=str(tmp_path))
    reasons = found["precision_reasons"]
    for key in precision.KEYS:
        assert found[key] == began[key] == ("bf16" if native else "fp32")
        assert reasons[key].startswith(f"auto: the run began in {began[key]} (")
    # Back on the first kind, it is the hardware's choice again.
    monkeypatch.setenv(precision.VARIABLE, "1" if native else "0")
    back = settled(output_folder=str(tmp_path))
    assert back["precision_reasons"] == began["precision_reasons"]


def test_a_resumed_run_obeys_the_command_line_once(monkeypatch, tmp_path):
    monkeypatch.setenv(precision.VARIABLE, "1")
    settled(output_folder=str(tmp_path))
    begin(tmp_path)
    found = settled("--precision=fp32", output_folder=str(tmp_path))
    assert found["precision"] == "fp32"
    assert settled(output_folder=str(tmp_path))["precision"] == "bf16"


def test_a_run_that_began_by_the_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv(precision.VARIABLE, "1")
    settled("--precision=fp32", output_folder=str(tmp_path))
    begin(tmp_path)
    found = settled(output_folder=str(tmp_path))
    assert precision.describe(found)["precision"] == (
        "fp32 (auto: the run began in fp32 (as the command line says))"
    )


def test_a_run_in_fp16_does_not_move_to_a_cpu(tmp_path):
    path = tmp_path / precision.FILE_NAME
    path.parent.mkdir()
    path.write_text('{"precision": "fp16 (auto: this GPU has no bf16)"}')
    begin(tmp_path)
    with pytest.raises(ConfigError, match="fp16.* add --precision=fp32"):
        settled(output_folder=str(tmp_path))
    found = settled("--precision=fp32", output_folder=str(tmp_path))
    assert found["precision"] == "fp32"


def test_a_folder_without_a_run_decides_nothing(native, tmp_path):
    """A start that ended before its first checkpoint, in the other one."""
    other = "fp32" if native else "bf16"
    settled(precision=other, output_folder=str(tmp_path))
    assert json.loads((tmp_path / precision.FILE_NAME).read_text())
    # A corpus, or another run, below the folder is no run of its own.
    begin(tmp_path, "rounds/save/checkpoints/CKPT+1")
    assert settled(output_folder=str(tmp_path))["precision"] != other
