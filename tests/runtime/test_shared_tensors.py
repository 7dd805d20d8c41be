"""What plug-ins do to tensors that they share is seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.runtime.shared_tensors import SharedTensors, SharedWeights, counting_changes


def replaced(tensor: Tensor) -> None:
    tensor.data = tensor.clone()


COUNTED = {
    "in place": lambda x: x.mul_(2),
    "one element": lambda x: x.view(-1).__setitem__(3, 7.0),
    "through a view": lambda x: x.mT[0].zero_(),
    "through detach": lambda x: x.detach().add_(1),
    "another storage": replaced,
}
AROUND = {
    "data": lambda x: x.data.mul_(2),
    "one element of data": lambda x: x.data[0, 5].__setitem__(3, 7.0),
    "the order of data": lambda x: x.data.copy_(x.roll(5, 1)),
    "numpy": lambda x: x.numpy().__imul__(2),
}


@pytest.mark.parametrize("change", [*COUNTED, *AROUND])
@pytest.mark.parametrize("turned", [False, True])
def test_a_change_is_seen(change: str, turned: bool) -> None:
    shared = SharedTensors()
    with torch.inference_mode():
        with counting_changes():
            tensor = torch.rand(3, 40, 50)
            shared.keep("the keys", tensor.mT if turned else tensor)
        assert shared.changed(closely=True) is None
        (COUNTED | AROUND)[change](tensor)
        assert shared.changed(closely=True) == (None if turned and change == "another storage" else "the keys")
        assert (shared.changed() is None) == (change in AROUND or (turned and change == "another storage"))


def test_what_nobody_was_given_is_compared_once_it_is_handed_out() -> None:
    shared, tensor = SharedTensors(), torch.rand(3, 4)
    assert shared.keep("the input", tensor, handed_out=False) is tensor
    tensor.data.mul_(2)
    assert shared.changed(closely=True) is None
    assert shared.hand_out(tensor) is tensor
    tensor.data.mul_(2)
    assert shared.changed(closely=True) == "the input"


def test_nan_and_nothing_are_no_changes() -> None:
    shared = SharedTensors()
    shared.keep("nan", torch.full((300,), torch.nan))
    shared.keep("half", torch.ones(5, dtype=torch.float16).expand(9, 5))
    shared.keep("empty", torch.zeros(0, 4))
    assert shared.changed(closely=True) is None


def test_a_changed_weight_is_named() -> None:
    model = nn.Linear(3, 4)
    shared = SharedWeights(model)
    model.bias.data.add_(1)
    assert shared.changed() is None and shared.changed(closely=True) == "the weights (bias)" and shared.differs()


def test_weights_of_several_types_or_none_are_as_they_were() -> None:
    for model in (nn.Identity(), nn.BatchNorm2d(3), nn.Sequential(nn.Linear(3, 1).half(), nn.Linear(1, 5))):
        assert SharedWeights(model).changed(closely=True) is None and not SharedWeights(model).differs()
