"""Start the project's Python programs by a fork of a process that has imported PyTorch: in 0.05 s instead of three.

`python()` stands for `sys.executable`, and `mfik` beside it for the installed program, where a test runs a script many
times or for its outcome alone. It is a command of its own, this file as a program, that hands its arguments, folder,
environment and standard streams to a server, passes on the signals it gets, and ends as the script ends. Whatever else
than a script or `-m mfik` it is asked for, it leaves to the real interpreter. Tests of a start itself, its imports or
its processor time, take `sys.executable`.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ADDRESS = "MFIK_TEST_PROGRAMS"  # environment: where the server listens
SIGNAL_GROUP = "MFIK_TEST_SIGNAL_GROUP"  # environment: pass signals on to the script's processes, as a terminal does
_PRELOADED = "mfik.fit, onnx, onnxscript, matplotlib.pyplot, torch.utils.tensorboard"


@cache
def python() -> str:
    """Return the path of a program that stands for Python; its folder, put first on PATH, has it and `mfik`."""
    folder = tempfile.TemporaryDirectory(prefix="mfik-programs-")
    address = Path(folder.name) / "socket"
    command = Path(folder.name) / "python"
    command.write_text(f"#!{sys.executable} -IS\n" + Path(__file__).read_text())
    command.chmod(0o755)
    code = f"import sys; sys.path.insert(1, {str(Path(__file__).parent)!r}); import programs; programs.serve()"
    program = Path(folder.name) / "mfik"
    program.write_text(f'#!/bin/sh\nexec {command} -m mfik "$@"\n')
    program.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout.readline() == b"ready\n"
    os.environ[ADDRESS] = str(address)

    def end() -> None:
        server.stdin.close()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    return str(command)


def serve() -> None:
    """Run each script that is asked for in a process of its own, until standard input ends."""
    import gc
    import importlib

    for name in _PRELOADED.split(", "):
        importlib.import_module(name)
    gc.freeze()  # what is there by now is never looked through, and so not copied
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    print("ready", flush=True)
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    # The keeper, which waits for the script and tells how it ended.
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as file:
        request = json.loads(file.readline())
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        connection.sendall(f"{pid}\n".encode())
        connection.sendall(f"{os.waitpid(pid, 0)[1]}\n".encode())
        os._exit(0)
    connection.close()
    _become(request, streams)


def _become(request: dict, streams: list[int]) -> None:
    """Run a script as the real interpreter would, in a session of its own, and end the process."""
    import runpy
    import threading

    import torch

    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request["arguments"]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    module = sys.argv[0] == "-m"
    folder = os.getcwd() if module else str(Path(sys.argv[0]).resolve().parent)
    sys.path[:2] = [folder, *(path for path in paths if path not in sys.path)]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    code = 0
    try:
        if module:
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    # Without taking the interpreter down, which would touch, and so copy, all memory shared with the server: 1 s.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _stand_for_python(arguments: list[str]) -> None:
    """Let the server run a script, and end as it ends."""
    script = arguments[:1] and arguments[0].endswith(".py") and os.path.isfile(arguments[0])
    if not script and arguments[:2] != ["-m", "mfik"]:
        os.execv(sys.executable, [sys.executable, *arguments])
    umask = os.umask(0)
    request = {"arguments": arguments, "cwd": os.getcwd(), "umask": umask, "environment": dict(os.environ)}
    signals = (signal.SIGINT, signal.SIGTERM)
    # Signals are read from a socket beside the answers: a handler alone would wait for the next answer where a signal
    # comes just before the call that waits for one.
    noted, note = socket.socketpair()
    note.setblocking(False)
    signal.set_wakeup_fd(note.fileno())
    for number in signals:
        signal.signal(number, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as file:
            pid = int(file.readline())
            pass_on = os.killpg if os.environ.get(SIGNAL_GROUP) else os.kill
            while connection not in select.select([noted, connection], [], [])[0]:
                for number in noted.recv(16):
                    pass_on(pid, number)
            status = int(file.readline())
    if os.WIFSIGNALED(status):
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    _stand_for_python(sys.argv[1:])
