from larder.stream.block_memory import BlockMemory

MIB = 1 << 20


def test_memory_of_usual_blocks_is_used_again():
    memory = BlockMemory([4 * MIB, 3 * MIB])
    first = memory.take(4 * MIB)
    first[:] = b"a" * len(first)
    del first
    second = memory.take(3 * MIB)
    assert len(second) == 3 * MIB
    assert second[:1] == b"a"


def test_a_view_keeps_its_memory():
    memory = BlockMemory([4 * MIB])
    first = memory.take(4 * MIB)
    first[:] = b"a" * len(first)
    view = first[5:10]
    del first
    memory.take(4 * MIB)[:] = b"b" * (4 * MIB)
    assert view == b"aaaaa"


def test_short_and_long_blocks_take_their_length_alone():
    memory = BlockMemory([4 * MIB, 1000, 40 * MIB])
    lengths = 1000, 3 * MIB - 1, 3 * MIB, 4 * MIB, 40 * MIB
    assert [memory.cost(length) for length in lengths] == [1000, 3 * MIB - 1, 4 * MIB, 4 * MIB, 40 * MIB]
    assert [len(memory.take(length)) for length in lengths] == list(lengths)
    assert BlockMemory([]).cost(7) == len(BlockMemory([]).take(7)) == 7
