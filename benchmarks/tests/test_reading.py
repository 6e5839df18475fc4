"""What is read of other programs: wrk, nginx, /proc."""

import os

import pytest

from benchmarks import machine, processes
from benchmarks.loads import wrk
from benchmarks.works.http import handled

PRINTED = """Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%  812.00us
     75%    1.20ms
     90%    1.50ms
     99%    1.02s
  61234 requests in 2.00s, 14.31MB read
{errors}Requests/sec:  30617.32
Transfer/sec:      7.15MB
"""


def test_wrks_rate_count_and_quantiles_are_read():
    assert wrk.parse(PRINTED.format(errors="")) == wrk.Printed(61234, 30617.32, 0.812, 1020.0, 0)


def test_wrks_refused_and_broken_calls_are_errors():
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    assert wrk.parse(PRINTED.format(errors=errors)).errors == 15


def test_a_run_of_wrk_without_a_rate_is_a_failure():
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_the_upstreams_count_is_read_of_its_status():
    status = "Active connections: 1 \nserver accepts handled requests\n 16630948 16630947 31070465 \nReading: 0\n"
    assert handled(status) == 31070465


def test_cpu_time_of_a_process_grows_while_it_works():
    before = processes.cpu_s([os.getpid()])
    while processes.cpu_s([os.getpid()]) == before:
        sum(range(10_000))
    assert processes.rss_kib([os.getpid()]) > 1_000


def test_the_ticks_of_a_process_are_read_whatever_its_name():
    assert processes._ticks("7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0") == 300


def test_the_busy_share_is_what_was_not_idle():
    assert machine.share((100, 200), (150, 300)) == 0.5
    assert machine.share((100, 200), (100, 200)) == 0.0
    assert machine._times("cpu  10 0 5 80 5 0 0 0 0 0\ncpu0 1 2 3\n") == (85, 100)
