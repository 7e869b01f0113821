import os

from larder.stream.shared_slots import MAX_FREE, SharedSlots, SlotPool, create_file


def test_what_is_written_is_read() -> None:
    file = create_file()
    writer, reader = SharedSlots(file, 5000), SharedSlots(os.dup(file), 5000)
    pool = SlotPool(writer)
    taken = [pool.take() for _ in range(100)]
    assert [number for number, _ in taken] == list(range(100))
    for number, memory in taken:
        memory[:] = number
    writer.counts[:] = 7, 8
    assert all((reader.slot(number) == number).all() for number in range(100))
    assert reader.slot(3).size == 5000
    assert reader.counts.tolist() == [7, 8]


def test_arrays_outlive_the_slots() -> None:
    file = create_file()
    slots = SharedSlots(file, 5000)
    kept = slots.slot(2)[100:200].reshape(10, 10)
    kept[:] = 5
    del slots
    assert (kept == 5).all()


def test_slots_are_used_again() -> None:
    file = create_file()
    pool = SlotPool(SharedSlots(file, 5000))
    first = [pool.take()[0] for _ in range(3)]
    pool.give_back([1])
    assert pool.take()[0] == 1
    assert pool.take()[0] == 3
    assert first == [0, 1, 2]


def test_only_a_few_free_slots_keep_their_memory() -> None:
    file = create_file()
    size = 1 << 20
    pool = SlotPool(SharedSlots(file, size))
    for _, memory in [pool.take() for _ in range(40)]:
        memory[:] = 1
    used = os.fstat(file).st_blocks * 512
    assert used >= 40 * size
    pool.give_back(range(40))
    assert os.fstat(file).st_blocks * 512 <= MAX_FREE * size + used - 40 * size
    numbers = [pool.take()[0] for _ in range(40)]
    assert sorted(numbers) == list(range(40)), "slots without memory are used before new ones"


def test_many_slots_take_few_descriptors() -> None:
    file = create_file()
    before = len(os.listdir("/proc/self/fd"))
    slots = SharedSlots(file, 5000)
    held = [slots.slot(number) for number in range(2000)]
    assert len(os.listdir("/proc/self/fd")) - before < 20
    assert len({memory.ctypes.data for memory in held}) == 2000
