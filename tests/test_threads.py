"""Things done side by side come out as if they were done one by one."""

import threading

import pytest
import torch

from genesplice.baselines.ridge import one_thread
from genesplice.runtime import side_by_side


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_side_by_side_keeps_order_and_uses_one_thread_each(two_threads):
    both_here = threading.Barrier(2, timeout=20)

    def work(number: int) -> tuple[int, int]:
        both_here.wait()  # a second one must be under way
        return number, torch.get_num_threads()

    assert side_by_side(work, range(4)) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("keeps_gradients", [True, False])
def test_gradients_are_kept_as_where_it_is_called(two_threads, keeps_gradients):
    weight = torch.ones(3, requires_grad=True)
    with torch.set_grad_enabled(keeps_gradients):
        found = side_by_side(lambda factor: weight * factor, [1.0, 2.0])
    assert [one.requires_grad for one in found] == [keeps_gradients] * 2


def test_what_was_made_in_inference_mode_can_be_filled(two_threads):
    with torch.inference_mode():
        filled = torch.zeros(4)
        side_by_side(lambda place: filled[place].fill_(place + 1), range(4))
    assert filled.tolist() == [1, 2, 3, 4]


def test_an_error_reaches_the_caller(two_threads):
    def work(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        return number

    with pytest.raises(ValueError, match="one"):
        side_by_side(work, range(3))
    assert torch.get_num_threads() == 2


def test_elsewhere_than_on_a_cpu_one_by_one(two_threads):
    caller = threading.get_ident()
    found = side_by_side(lambda _: threading.get_ident(), range(3), torch.device("meta"))
    assert found == [caller] * 3


def test_one_thread_gives_the_threads_back(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
