from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from works import double

from unmask.errors import UserError
from unmask.execution.address import executor_at
from unmask.execution.executor import Done, LocalExecutor, error_line

TASKS = st.lists(st.integers(0, 20), max_size=30)


@settings(deadline=None)
@given(TASKS, st.integers())
def test_every_task_ends_as_the_work_does_and_its_failure_is_its_own(
    tasks: list[int], shared: int
) -> None:
    with executor_at("local") as here:
        ended = {d.index: d for d in here.run(double, shared, tasks)}
    assert sorted(ended) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        done = ended[index]
        if task in (13, 14):
            assert done.result is None
            assert done.error is not None
            assert str(task) in done.error
        else:
            assert done == Done(index, 2 * task + shared, None)


@settings(deadline=None)
@given(TASKS, st.data())
def test_tasks_are_drawn_when_they_are_needed_and_no_more_after_closing(
    tasks: list[int], data: st.DataObject
) -> None:
    wanted = data.draw(st.integers(0, len(tasks)))
    drawn = []

    def draw() -> Iterator[int]:
        for task in tasks:
            drawn.append(task)
            yield task

    ended = LocalExecutor().run(double, 0, draw())
    assert drawn == []
    for _ in range(wanted):
        next(ended)
        assert len(drawn) <= wanted
    ended.close()
    assert drawn == tasks[:wanted]
    assert list(ended) == []


def test_ctrl_c_in_a_task_is_not_a_failure_of_the_task() -> None:
    def interrupted(shared: None, task: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(LocalExecutor().run(interrupted, None, [1]))


def test_what_the_tasks_raise_is_not_swallowed() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("no more")

    ended = LocalExecutor().run(double, 0, broken())
    assert next(ended).result == 2
    with pytest.raises(RuntimeError, match="no more"):
        next(ended)


def test_an_error_is_told_in_one_line_with_its_place() -> None:
    with pytest.raises(ValueError, match="unlucky") as caught:
        double(0, 13)
    assert error_line(caught.value).startswith("ValueError: 13 is unlucky (double, line ")
    assert error_line(UserError("all wrong", got=3, do="think")) == "all wrong: got 3; think"
    assert error_line(KeyError()) == "KeyError"
