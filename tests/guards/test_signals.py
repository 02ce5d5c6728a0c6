"""Handlers of signals run after what they must not interrupt."""

import random
import signal
import threading

import pytest
from torch import nn

from lightning_nc.callbacks.messages import safely
from lightning_nc.guards.signals import signals_held
from lightning_nc.guards.unobtrusive import unobtrusive

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")


class Preempted(Exception):
    pass


def preempt(*_):
    raise Preempted


@pytest.fixture
def handled():
    """Install handlers, which are taken away again."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def install(number, handler):
        signal.signal(number, handler)

    install(signal.SIGINT, signal.default_int_handler)
    yield install
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def test_handlers_run_after_the_block_once_each_and_are_put_back(handled):
    told = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        handled(number, lambda number, _: told.append(number))
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with signals_held() as arrived:
        assert not arrived()
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)
        assert arrived()
        assert told == []
    assert told == [signal.SIGUSR1, signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers


def test_a_handler_that_raises_costs_no_other_its_turn(handled):
    told = []
    handled(signal.SIGTERM, preempt)
    handled(signal.SIGUSR1, lambda *_: told.append("later"))
    with pytest.raises(Preempted), signals_held():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
    assert told == ["later"]
    assert signal.getsignal(signal.SIGTERM) is preempt


def test_blocks_within_each_other_give_signals_on(handled):
    handled(signal.SIGTERM, preempt)
    steps = []
    with pytest.raises(Preempted), signals_held() as arrived:  # noqa: PT012
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            steps.append(arrived())
        steps.append(arrived())
    assert steps == [False, True]


ENDING = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"]


@pytest.mark.parametrize("name", [*ENDING, "SIGCHLD", "SIGALRM"])
def test_what_ends_a_run_or_has_it_saved_ends_the_block_and_workers_and_timers_do_not(
    handled, name
):
    """Handlers for these may raise, as torch's does when a worker of a loader has died."""
    number = getattr(signal, name)
    handled(number, preempt)
    steps = []
    with pytest.raises(Preempted), signals_held() as arrived:  # noqa: PT012
        signal.raise_signal(number)
        steps.append(arrived())
    assert steps == [name in ENDING]
    assert signal.getsignal(number) is preempt


def test_a_handler_installed_in_the_block_calls_the_one_before_it(handled):
    """As torch's does when the first loader with workers is made."""
    told = []
    handled(signal.SIGCHLD, lambda *_: told.append("of the program"))
    with signals_held():
        before = signal.getsignal(signal.SIGCHLD)
        handled(signal.SIGCHLD, lambda *args: (told.append("of torch"), before(*args)))
        signal.raise_signal(signal.SIGCHLD)
        assert told == ["of torch"]
    told.clear()
    signal.raise_signal(signal.SIGCHLD)
    assert told == ["of torch", "of the program"]


def test_a_keyboard_interrupt_is_raised_at_once(handled):
    steps = []
    with pytest.raises(KeyboardInterrupt), signals_held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")  # an interrupt that is held would come after this
    assert steps == []


@pytest.mark.parametrize("way", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_for_which_the_program_has_no_handler_does_at_once_what_it_did(handled, way):
    handled(signal.SIGTERM, way)
    with signals_held(interrupts=True):
        within = signal.getsignal(signal.SIGTERM)
    assert within is way
    assert signal.getsignal(signal.SIGTERM) is way


def test_in_other_threads_nothing_is_held(handled):
    handled(signal.SIGTERM, preempt)
    found = []

    def work():
        with signals_held():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [preempt]


def test_what_a_handler_raises_is_no_failure_of_ours(handled):
    handled(signal.SIGTERM, preempt)
    with pytest.raises(Preempted):
        safely(None, set(), "do it", lambda: signal.raise_signal(signal.SIGTERM))


class Interrupting(random.Random):
    """A generator during whose restoring the user presses Ctrl+C."""

    def setstate(self, state):
        signal.raise_signal(signal.SIGINT)
        super().setstate(state)


def test_an_interrupt_comes_after_everything_is_restored(handled):
    held = [random.Random(1), Interrupting(2), random.Random(3)]
    states = [each.getstate() for each in held]
    with pytest.raises(KeyboardInterrupt), unobtrusive(nn.Linear(2, 2), held):
        print([each.random() for each in held])
    assert [each.getstate() for each in held] == states
