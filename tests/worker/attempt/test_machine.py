"""What is known of the processor; names of instructions are tried where they are used, in test_second_graph.py."""

import threading

from worker.attempt import machine


def test_a_machine_is_slower_while_another_thread_computes():
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    # They take turns at one interpreter: this one has half of it at most.
    thread = threading.Thread(target=compute)
    thread.start()
    try:
        assert machine.slowness() > 1.3
    finally:
        ended.set()
        thread.join()
    assert machine.slowness() >= 1
