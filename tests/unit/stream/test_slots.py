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


def test_a_limited_number_is_kept():
    slots = Slots(10)
    held = [slots.take() for _ in range(50)]
    del held
    assert len(slots._free) == 8


def test_memory_of_no_bytes():
    assert len(Slots(0).take()) == 0
