import numpy as np

from larder.stream.slots import Slots


def test_memory_is_used_again_when_nobody_refers_to_it():
    slots = Slots(1000)
    first = slots.take()
    address = first.ctypes.data
    del first
    assert slots.take().ctypes.data == address


def test_memory_that_somebody_holds_is_not_used():
    slots = Slots(1000)
    array = slots.take()
    array[:] = 1
    kept = array.reshape(10, 100)[3:5]  # numpy lets a slice of a slice refer to the first array alone
    del array
    others = [slots.take() for _ in range(3)]
    for other in others:
        other[:] = 2
    assert (kept == 1).all()
    address = kept.ctypes.data - 300
    del kept
    assert slots.take().ctypes.data == address


def test_memory_comes_from_the_allocator():
    made = []

    def allocate(size: int) -> np.ndarray:
        made.append(np.zeros(size, np.uint8))
        return made[-1]

    slots = Slots(10, allocate)
    slots.take()[:] = 7
    assert len(made) == 1
    assert (made[0] == 7).all()
