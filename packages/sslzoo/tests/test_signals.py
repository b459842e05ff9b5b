"""Signals wait for the end of a step."""

import multiprocessing
import os
import signal

import pytest

from sslzoo import StopSignal, TrainingInterrupted, block_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_noted_and_nothing_else_happens(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert signal.getsignal(number) is before


def test_a_second_interrupt_does_not_wait():
    with StopSignal(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_exit_codes_are_those_of_shells():
    stopped = TrainingInterrupted(signal.SIGTERM, 12)
    assert stopped.exit_code == 143
    assert str(stopped) == "stopped by SIGTERM after step 12; the same command goes on from there"


def hidden(pipe) -> None:
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def starting(pipe):
    """Like a loader: what it needs starts with its first item."""
    fork = multiprocessing.get_context("fork").Process(target=hidden, args=(pipe,))
    fork.start()
    yield "first"
    fork.join()
    yield "second"


def test_processes_of_a_loader_do_not_see_the_signals():
    here, there = multiprocessing.Pipe()
    with StopSignal():
        assert list(block_signals(starting(there))) == ["first", "second"]
        assert {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1} <= set(here.recv())
        assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert list(block_signals([])) == []
