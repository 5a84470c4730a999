"""Function calls in another process, with a time limit.

On some versions of JAX a batched `jnp.linalg.inv` can hang for ever, in compiled code that no exception reaches. Such a
call is made here: what does not answer in time is killed, and the next call starts a fresh process.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

START_TIMEOUT = 120.0  # seconds to start Python and to import JAX


class NoAnswer(Exception):
    """The call did not return within its time limit."""


class CallFailed(Exception):
    """The call raised an exception, or ended its process; the message says which."""


class Worker:
    """A process that answers one call at a time; a context manager, at whose end the process is gone."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill()

    def call(self, timeout: float, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, both picklable, from the other process within `timeout` seconds.

        Raises:
            NoAnswer: no result in time.
            CallFailed: an exception, or a crash.
        """
        try:
            if self._process is None:
                self._start()
            self._pipe.send((function, args))
            succeeded, value = self._receive(timeout)
        except (EOFError, OSError):
            self._process.join(1.0)
            code = self._process.exitcode
            self._kill()
            raise CallFailed(f"the process ended with status {code}") from None
        except BaseException:  # an interrupt too: the call is not to go on alone
            self._kill()
            raise
        if not succeeded:
            raise CallFailed(value)
        return value

    def _receive(self, timeout: float) -> tuple[bool, Any]:
        if not self._pipe.poll(timeout):
            raise NoAnswer(f"no answer in {timeout:g} s")
        return self._pipe.recv()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end,), daemon=True)
        in_main_thread = threading.current_thread() is threading.main_thread()
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
        try:
            self._process.start()  # it inherits that Ctrl-C is not for it
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, interrupt)
            other_end.close()
        self._receive(START_TIMEOUT)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection) -> None:
    os.dup2(2, 1)  # standard output belongs to the report
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pipe.send((True, "ready"))
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*args)
        except Exception as error:
            answer = False, traceback.format_exception_only(error)[-1].strip()
        pipe.send(answer)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
