"""A static bound on the cycles of an AVX-512 loop: its instructions counted against the pipes of a Zen 4 core.

Classes and rates were measured on an AMD EPYC of family 25, model 17: multiplications, multiply-adds and comparisons
start one a cycle, additions, roundings and conversions one a cycle beside them, integer operations and permutations
take a free slot of either, and square roots and divisions block. Loads, and broadcasts that are operands, are free.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

_MULTIPLY = re.compile(r"v(?:fn?m(?:add|sub)\w+|mul[ps]\w|p?cmp\w+|rsqrt14p\w|rcp14p\w|ptestn?m\w|fpclassp\w)")
_PRODUCT = re.compile(r"v(?:fn?m|mul)")
_ADD = re.compile(
    r"v(?:(?:add|sub|min|max)p\w|rndscale\w+|range\w+|cvt\w+|get(?:exp|mant)\w+|ps[lr][la]\w+|p?broadcast\w+)"
)
_SCALE = re.compile(r"vscalefp\w")
_EITHER = re.compile(
    r"v(?:p(?:add|sub|and|or|xor|min|max|blend|tern|abs|erm|mov[sz]x)\w*|(?:xor|and|or|andn)p\w|blendm\w+|perm\w+"
    r"|(?:insert|extract|unpck|shuf)\w+)"
)
_SLOW: Mapping[str, int] = {"vsqrtps": 10, "vsqrtpd": 16, "vdivps": 6, "vdivpd": 9}
_MASK = re.compile(r"k(?:ortest|test|or|and|not|xor|unpck|shift|mov)\w+")


@dataclass(frozen=True)
class Ports:
    """Slots that a stretch of code takes of each pipe, in cycles of a pipe of 512 bits.

    Attributes:
        multiply: slots of the pipe that multiplies.
        add: slots of the pipe that adds.
        either: slots of one or the other.
        blocked: cycles for which square roots and divisions hold both.
        spills: vectors that are written to the stack, which costs two cycles each.
        reloads: vectors that are read from a fixed place of the stack: those written there, and elements of rows that
            are not in registers.
    """

    multiply: float = 0.0
    add: float = 0.0
    either: float = 0.0
    blocked: float = 0.0
    spills: float = 0.0
    reloads: float = 0.0

    @property
    def bound(self) -> float:
        """Cycles that the code takes at least."""
        pipes = max(self.multiply, self.add, (self.multiply + self.add + self.either) / 2)
        return max(pipes + self.blocked, 2 * self.spills)

    def __add__(self, other: "Ports") -> "Ports":
        """Add slots of code that follows."""
        return Ports(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __mul__(self, times: float) -> "Ports":
        """Repeat code, or share its slots."""
        return Ports(*(getattr(self, field.name) * times for field in fields(self)))

    def as_dict(self) -> dict[str, float]:
        """Name all slots, and the bound."""
        return {field.name: round(getattr(self, field.name), 2) for field in fields(self)} | {
            "bound": round(self.bound, 2)
        }


def ports_of(instruction: str) -> Ports:
    """Give the slots of one instruction of AT&T assembly; scalar instructions take none."""
    slots = _pipes_of(instruction)
    operands = instruction.partition("\t")[2]
    place = re.search(r"(?<![\w%])-?\d*\(%[re]?[sb]p\)(,?)", operands)
    if "%zmm" not in operands or place is None:
        return slots
    return slots + (Ports(reloads=1.0) if place.group(1) else Ports(spills=1.0))


def _pipes_of(instruction: str) -> Ports:
    name, _, operands = instruction.partition("\t")
    if _MASK.fullmatch(name):
        return Ports(either=0.0 if name.startswith("kmov") else 1.0)
    if "%zmm" not in operands:
        return Ports()
    if name in _SLOW:
        return Ports(blocked=_SLOW[name])
    if _SCALE.fullmatch(name):
        return Ports(add=2.0)
    if _MULTIPLY.fullmatch(name):
        return Ports(multiply=1.0)
    if _ADD.fullmatch(name):
        return Ports(add=1.0)
    if _EITHER.fullmatch(name):
        return Ports(either=0.0 if _is_zeroing(name, operands) else 1.0)
    if name.startswith("vmov"):
        return Ports(either=1.0 if "{%k" in operands else 0.0)
    raise ValueError(f"no class is known for the instruction {instruction!r}")


def _is_zeroing(name: str, operands: str) -> bool:
    return "xor" in name and len(set(re.split(r",\s*", operands))) == 1


@dataclass
class _Block:
    """Instructions without a label or a jump among them; `following` are the positions of blocks that may follow."""

    ports: Ports
    products: int
    following: list[int]


def _blocks(assembly: str) -> Iterator[list[_Block]]:
    """Read the functions of assembly as basic blocks."""
    for function in re.split(r"^\w+:", assembly, flags=re.MULTILINE)[1:]:
        yield _blocks_of_function(function.split(".Lfunc_end")[0])


def _blocks_of_function(text: str) -> list[_Block]:
    pieces: list[list[str]] = [[]]
    labels: dict[str, int] = {}
    for line in text.splitlines():
        code = line.split("#")[0].strip()
        label = re.fullmatch(r"(\.LBB\w+):", code)
        if label:
            pieces.append([])
            labels[label.group(1)] = len(pieces) - 1
        elif code and not code.startswith("."):
            pieces[-1].append(code)
            if re.match(r"j\w+\s|ret", code):
                pieces.append([])
    blocks = []
    for position, piece in enumerate(pieces):
        last = piece[-1] if piece else ""
        jump = re.match(r"(j\w+)\s+(\S+)", last)
        following = [labels[jump.group(2)]] if jump else []
        if not last.startswith(("jmp", "ret")) and position + 1 < len(pieces):
            following.append(position + 1)
        ports = Ports()
        for code in piece:
            ports += ports_of(code)
        products = sum(bool(_PRODUCT.match(code)) and "%zmm" in code for code in piece)
        blocks.append(_Block(ports, products, following))
    return blocks


@dataclass
class _Loop:
    """A natural loop: its first block, and all of them."""

    head: int
    blocks: frozenset[int]


def _loops(blocks: Sequence[_Block]) -> list[_Loop]:
    """Find the loops of a function, those with the same head as one."""
    before: dict[int, set[int]] = {position: set() for position in range(len(blocks))}
    for position, block in enumerate(blocks):
        for follower in block.following:
            before[follower].add(position)
    found: dict[int, set[int]] = {}
    for tail, head in _back_edges(blocks):
        inside, waiting = found.setdefault(head, {head}), [tail]
        while waiting:
            position = waiting.pop()
            if position not in inside:
                inside.add(position)
                waiting += before[position]
    return [_Loop(head, frozenset(inside)) for head, inside in found.items()]


def _back_edges(blocks: Sequence[_Block]) -> list[tuple[int, int]]:
    """Give the edges that close a cycle in a walk from the first block."""
    edges, seen, open_blocks = [], {0}, {0}
    path = [(0, iter(blocks[0].following))]
    while path:
        position, rest = path[-1]
        follower = next(rest, None)
        if follower is None:
            open_blocks.discard(position)
            path.pop()
        elif follower in open_blocks:
            edges.append((position, follower))
        elif follower not in seen:
            seen.add(follower)
            open_blocks.add(follower)
            path.append((follower, iter(blocks[follower].following)))
    return edges


def count_column_loop(assembly: str, *, inner_turns: int = 1) -> Ports:
    """Count one turn of the loop over columns: that with the most multiplications of vectors.

    Of several ways through the loop the cheapest counts: the others (a new maximum, a candidate for a list of
    neighbours) are rarely gone.

    Args:
        assembly: x86-64, AT&T syntax.
        inner_turns: turns of the loop over a long inner dimension; 1 where it is unrolled.
    """
    candidates = []
    for blocks in _blocks(assembly):
        loops = _loops(blocks)
        for loop in loops:
            within = [other.blocks for other in loops if other.blocks < loop.blocks]
            own = loop.blocks.difference(*within)
            products = sum(blocks[position].products for position in own)
            if inner_turns == 1 or not within:
                candidates.append((products, len(candidates), blocks, loops, loop))
    *_, blocks, loops, loop = max(candidates, key=lambda candidate: candidate[:2])
    if inner_turns == 1:
        return _cheapest_turn(blocks, loops, loop)
    outer = min((other for other in loops if loop.blocks < other.blocks), key=lambda other: len(other.blocks))
    return _cheapest_turn(blocks, loops, outer, through=loop, turns=inner_turns)


def _cheapest_turn(
    blocks: Sequence[_Block], loops: Sequence[_Loop], loop: _Loop, *, through: "_Loop | None" = None, turns: int = 1
) -> Ports:
    """Find the cheapest way from the head of a loop back to it, through a loop inside that turns several times."""
    inner = [other for other in loops if other.blocks < loop.blocks]
    outermost = [other for other in inner if not any(other.blocks < more.blocks for more in inner)]
    entered = {position: other for other in outermost for position in other.blocks}
    best: dict[tuple[int, bool], Ports] = {}
    waiting = [(loop.head, through is None, Ports())]
    finished: list[Ports] = []
    while waiting:
        position, passed, spent = waiting.pop()
        nested = entered.get(position)
        if nested is None:
            spent += blocks[position].ports
            followers = blocks[position].following
        else:
            passed = passed or nested is through
            spent += _cheapest_turn(blocks, loops, nested) * (turns if nested is through else 1)
            followers = [out for place in nested.blocks for out in blocks[place].following if out not in nested.blocks]
        for follower in followers:
            known = best.get((follower, passed))
            if follower == loop.head:
                finished += [spent] if passed else []
            elif follower in loop.blocks and (known is None or _total(spent) < _total(known)):
                best[follower, passed] = spent
                waiting.append((follower, passed, spent))
    return min(finished, key=_total)


def _total(ports: Ports) -> float:
    return ports.multiply + ports.add + ports.either + ports.blocked + ports.spills
