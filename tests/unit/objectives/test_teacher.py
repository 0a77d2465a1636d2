"""The momentum teacher."""

import pytest
import torch

from speechbrain_ssl.objectives.teacher import MomentumTeacher


def nets():
    """An encoder with a batch norm, and a head."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5)
    )
    return encoder, torch.nn.Linear(5, 3)


def move(*modules):
    """Changes every parameter and buffer of a student."""
    with torch.no_grad():
        for module in modules:
            for p in module.parameters():
                p.add_(torch.randn_like(p))
            for b in module.buffers():
                b.add_(1)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.996, 1.0])
def test_update_is_the_equation(momentum):
    """theta_t <- m theta_t + (1 - m) theta_s, parameter by parameter."""
    encoder, head = nets()
    teacher = MomentumTeacher(encoder, head)
    old = [p.clone() for p in teacher.parameters()]
    move(encoder, head)
    teacher.update(encoder, head, momentum)
    students = [*encoder.parameters(), *head.parameters()]
    assert len(old) == len(students) == 6
    for new, mine, theirs in zip(
        teacher.parameters(), old, students, strict=True
    ):
        wanted = momentum * mine + (1 - momentum) * theirs
        torch.testing.assert_close(new, wanted)
        assert not torch.equal(mine, theirs)
    if momentum == 1.0:
        assert all(
            torch.equal(a, b)
            for a, b in zip(teacher.parameters(), old, strict=True)
        )


def test_buffers_are_left_alone():
    """Running statistics are the teacher's own."""
    encoder, head = nets()
    teacher = MomentumTeacher(encoder, head)
    old = [b.clone() for b in teacher.buffers()]
    move(encoder, head)
    teacher.update(encoder, head, 0.5)
    assert len(old) == 3
    for new, before in zip(teacher.buffers(), old, strict=True):
        assert torch.equal(new, before)


def test_it_is_a_copy_without_gradient():
    """Student and teacher share nothing, and no gradient reaches it."""
    encoder, head = nets()
    teacher = MomentumTeacher(encoder, head)
    mine = {p.data_ptr() for p in teacher.parameters()}
    assert not mine & {p.data_ptr() for p in encoder.parameters()}
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in encoder.parameters())
    out = teacher.head(teacher.encoder(torch.randn(6, 4)))
    assert not out.requires_grad
    teacher.update(encoder, head, 0.9)
    assert not any(p.requires_grad for p in teacher.parameters())
