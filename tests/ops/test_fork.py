"""Operations with several threads in a process that was forked: the same bits, and no waiting for
threads that are not there. Each script runs in a process of its own, with a time limit."""

from __future__ import annotations

import subprocess
import sys

import tiny
from paths import SUPPORT

_DIGEST = """
import ctypes, hashlib, multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is our subject
import numpy as np
import convnet
from small_step import passes

def digest(threads=2):
    found = passes(threads)
    return hashlib.sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest()

def reap(pid, seconds=20.0):
    "The exit code of a child; that of one which does not end is -9."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(script: str, limit: float = 120.0) -> str:
    """The output of a script in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _DIGEST + script],
        env=tiny.environment(PYTHONPATH=str(SUPPORT)),
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_child_computes_the_same_bits() -> None:
    """Parent, child and grandchild, and the parent again; all with two threads."""
    assert (
        run("""
expected = digest()
context = multiprocessing.get_context("fork")
answers = context.Queue()

def child(deeper):
    if deeper:
        process = context.Process(target=child, args=(False,))
        process.start()
    answers.put(digest())
    if deeper:
        process.join()

process = context.Process(target=child, args=(True,))
process.start()
try:
    found = [answers.get(timeout=30) for _ in range(2)]
finally:
    process.kill()
print(found == [expected] * 2 and digest() == expected)
""")
        == "True"
    )


def test_a_pool_of_forked_processes() -> None:
    assert (
        run("""
expected = digest()
with multiprocessing.get_context("fork").Pool(3) as pool:
    found = [pool.apply_async(digest) for _ in range(6)]
    print({answer.get(timeout=60) for answer in found} == {expected})
""")
        == "True"
    )


def test_fork_while_another_thread_is_within_an_operation() -> None:
    """It prepares new plans all the time; its own threads and its locks are not the child's."""
    assert (
        run("""
def busy():
    size = 3
    while not stop.is_set():
        size += 1
        x = np.ones((2, size, size, 8), np.float32)
        convnet.ops.conv_fprop(x, np.ones((8, 3, 3, 8), np.float32), stride=2)
        convnet.ops.dense_fprop(np.ones((size, 64), np.float32), np.ones((32, 64), np.float32))

expected, stop = digest(), threading.Event()
other = threading.Thread(target=busy)
other.start()
codes = []
for _ in range(12):
    pid = os.fork()
    if pid == 0:
        os._exit(digest() != expected)
    codes.append(reap(pid))
    if codes[-1]:
        break
start = time.monotonic()
if (pid := os.fork()) == 0:
    sys.exit(digest() != expected)  # does not wait for operations of the parent's threads
codes.append(reap(pid, 60.0))
took = time.monotonic() - start
assert took < 10.0, took
stop.set()
other.join()
print(set(codes), digest() == expected)
""")
        == "{0} True"
    )


def test_fork_from_a_thread_that_has_a_pool_of_its_own() -> None:
    assert (
        run("""
expected, codes = digest(), []

def forks():
    digest()
    pid = os.fork()
    if pid == 0:
        os._exit(digest() != expected)
    codes.append(reap(pid))

threads = [threading.Thread(target=forks) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(codes, digest() == expected)
""")
        == "[0, 0, 0] True"
    )


def test_within_somebody_s_parallel_region() -> None:
    """There is one thread, in a child that was forked there too: its pool was in use."""
    assert run("""
try:
    library = ctypes.CDLL("libgomp.so.1")
except OSError:
    print("no libgomp: 0 True True")
    sys.exit()
expected, alone, codes = digest(), digest(threads=1), []

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def region(_):
    if library.omp_get_thread_num() == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(digest() != alone)
        codes.extend([reap(pid), digest() == alone])

library.GOMP_parallel(region, None, 2, 0)
print("libgomp:", *codes, digest() == expected)
""").endswith("libgomp: 0 True True")
