"""What a compiled program receives from other devices: the collectives in its HLO, with the trips of its loops."""

import re

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")
HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
RESULT = re.compile(rf"= (.*?) (?:{'|'.join(COLLECTIVES)})(?:-start)?\(")


def received_words(hlo):
    """The words that collectives give to a device in one run, and the most that one of them gives at a time.

    A collective counts by its result: of an `all_gather` over P devices, 1/P came from the device itself.
    """
    computations, name, entry = {}, None, None
    for line in hlo.splitlines():
        header = HEADER.match(line)
        if header:
            name = header[1]
            entry = name if line.startswith("ENTRY") else entry
            computations[name] = []
        elif name:
            computations[name].append(line)

    largest = 0

    def words(name):
        nonlocal largest
        total = 0
        for line in computations[name]:
            if result := RESULT.search(line):
                size = sum(_size(shape) for shape in re.findall(r"\w+\[([\d,]*)\]", result[1]))
                largest = max(largest, size)
                total += size
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            body = re.search(r"body=%?([\w.\-]+)", line)
            if body:
                inside = words(body[1])
                assert trips or not inside, f"a loop with collectives of unknown length: {line}"
                total += inside * int(trips[1]) if inside else 0
            else:
                total += sum(words(called) for called in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", line))
        return total

    return words(entry), largest


def _size(shape):
    size = 1
    for extent in filter(None, shape.split(",")):
        size *= int(extent)
    return size
