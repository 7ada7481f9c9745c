import math

import pytest
import torch

from lusbio.errors import LusbioError
from lusbio.network.training import biomarker_accuracy, choose_precision, class_accuracy, masked_bce

NAN = float("nan")


def test_masked_bce_equals_torch_where_everything_is_known():
    logits = torch.randn(5, 38, generator=torch.Generator().manual_seed(0))
    targets = (torch.rand(5, 38, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(masked_bce(logits, targets), expected)


def test_unknown_biomarkers_have_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    masked_bce(logits, torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 1.0]])).backward()
    assert (logits.grad[:, 1] == 0).all() and logits.grad[1, 0] == 0
    assert logits.grad[0, 0] == pytest.approx(-0.5 / 3) and logits.grad[0, 2] == pytest.approx(0.5 / 3)


def test_nothing_known_costs_nothing():
    logits = torch.ones(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_accuracies_count_what_is_known():
    targets = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    assert biomarker_accuracy(torch.tensor([[0.9, 0.1], [0.8, 0.7]]), targets) == pytest.approx(2 / 3)
    assert math.isnan(biomarker_accuracy(torch.zeros(1, 1), torch.tensor([[NAN]])))
    assert class_accuracy(torch.tensor([[0.7, 0.3], [0.6, 0.4]]), torch.tensor([0, 1])) == 0.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_precision_is_bfloat16_where_the_device_has_it(device, monkeypatch):
    monkeypatch.delenv("LUSBIO_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native: native)
        assert choose_precision(torch.device(device)) == expected


@pytest.mark.parametrize("asked", ["bf16-mixed", "32-true"])
def test_a_precision_that_is_asked_for_is_taken(asked, monkeypatch):
    monkeypatch.setenv("LUSBIO_PRECISION", asked)
    assert choose_precision(torch.device("cpu")) == choose_precision(torch.device("cuda")) == asked


def test_a_precision_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("LUSBIO_PRECISION", "16-mixed")
    with pytest.raises(LusbioError, match="LUSBIO_PRECISION is '16-mixed', expected bf16-mixed or 32-true"):
        choose_precision(torch.device("cpu"))
