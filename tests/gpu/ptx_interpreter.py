"""Run PTX kernels in NumPy: one array element for each thread, every access and every barrier checked.

All blocks of a launch run together. Threads that stand at the same instruction advance together, those at the lowest
one first, so that threads which left a branch wait for the others; nothing depends on it but speed. What the manual
leaves undefined is a `PtxError`, which names the line of the text.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ptx_arithmetic import COMPUTED, KNOWN_MODIFIERS, comparison, conversion, flush
from ptx_memory import WORD, GlobalMemory, WorkgroupMemory
from ptx_text import TYPE_BYTES, Address, Immediate, Instruction, Kernel, Operand, Pack, PtxError, Register, Symbol

Array = Any  # an ndarray
#: Which threads take part: True for all of them.
Mask = Any
Step = Callable[[Mask], None]

_WARP = 32
_MOST_STEPS = 20_000_000
_RUNNING, _WAITING, _DONE = 0, 1, 2
_DTYPE_KINDS = {"b": "u", "u": "u", "s": "i", "f": "f"}


def dtype_of(kind: str) -> Any:
    """Give the NumPy type of a PTX type."""
    if kind == "pred":
        return np.dtype(bool)
    if kind not in TYPE_BYTES:
        raise PtxError(f"type .{kind} is not supported")
    return np.dtype(f"{_DTYPE_KINDS[kind[0]]}{TYPE_BYTES[kind]}")


def launch(
    kernel: Kernel,
    *,
    grid: tuple[int, int, int],
    threads: int,
    arguments: Sequence[int],
    memory: GlobalMemory,
) -> None:
    """Run a kernel on a grid of blocks of `threads` threads along x.

    Args:
        kernel: of `parse_ptx`.
        grid: blocks along x, y and z.
        threads: of a block.
        arguments: 64-bit integers: addresses of `memory` and numbers.
        memory: is changed.

    Raises:
        PtxError: the kernel does what has no meaning on a GPU.
    """
    if kernel.max_threads and threads > kernel.max_threads:
        raise PtxError(f"{threads} threads, {kernel.name} takes at most {kernel.max_threads}")
    if len(arguments) != len(kernel.parameters):
        raise PtxError(f"{len(arguments)} arguments, {kernel.name} has {len(kernel.parameters)} parameters")
    if all(grid):
        with np.errstate(all="ignore"):
            _Launch(kernel, grid, threads, arguments, memory).run()
    memory.end_launch()


class _Launch:
    """All threads of a launch."""

    def __init__(
        self, kernel: Kernel, grid: tuple[int, int, int], threads: int, arguments: Sequence[int], memory: GlobalMemory
    ) -> None:
        self.kernel = kernel
        self.memory = memory
        blocks = math.prod(grid)
        self.count = blocks * threads
        self.workgroup = WorkgroupMemory(kernel.variables, blocks)
        self.arguments = dict(zip(kernel.parameters, arguments, strict=True))
        self.threads = np.arange(self.count)
        self.blocks = self.threads // threads
        thread = self.threads % threads
        self.warps = self.blocks * -(-threads // _WARP) + thread // _WARP
        self.special = {
            "%tid.x": thread,
            "%ctaid.x": self.blocks % grid[0],
            "%ctaid.y": self.blocks // grid[0] % grid[1],
            "%ctaid.z": self.blocks // (grid[0] * grid[1]),
            "%ntid.x": np.full(self.count, threads),
            "%nctaid.x": np.full(self.count, grid[0]),
            "%nctaid.y": np.full(self.count, grid[1]),
            "%nctaid.z": np.full(self.count, grid[2]),
            "%laneid": thread % _WARP,
        }
        self.registers = {name: np.zeros(self.count, _storage(kind)) for name, kind in kernel.registers.items()}
        self.carry = np.zeros(self.count, bool)
        self.counters = np.zeros(self.count, np.int64)
        self.states = np.full(self.count, _RUNNING)
        self._read = {name for instruction in kernel.instructions for name in _registers_read(instruction)}
        self.steps = [self._at_line(instruction, self._prepare) for instruction in kernel.instructions]

    def _at_line(self, instruction: Instruction, action: Callable[[Instruction], Any]) -> Any:
        try:
            return action(instruction)
        except PtxError as error:
            if "at line" in str(error):
                raise
            raise PtxError(f"{error}\n  at line {instruction.line}: {instruction.text}") from error

    # Control

    def run(self) -> None:
        """Run all threads to the end."""
        self._left = _MOST_STEPS
        while True:
            running = self.states == _RUNNING
            if running.any():
                self._advance(running)
            elif (self.states == _DONE).all():
                return
            else:
                self._pass_barriers()

    def _advance(self, running: Array) -> None:
        """Let the threads at the lowest instruction run until they part, wait, or meet others."""
        counter = int(self.counters[running].min())
        active = running & (self.counters == counter)
        others = self.counters[running & ~active]
        meeting = int(others.min()) if others.size else len(self.steps)
        everyone = active.all()
        mask: Mask = True if everyone else active
        while counter != meeting:
            if counter >= len(self.steps):
                raise PtxError(f"a thread runs off the end of {self.kernel.name}")
            instruction, step = self.kernel.instructions[counter], self.steps[counter]
            self._left -= 1
            if self._left < 0:
                raise PtxError(f"{self.kernel.name} does not end\n  at line {instruction.line}: {instruction.text}")
            taking = mask
            if instruction.guard:
                guard = self.registers[instruction.guard]
                taking = (~guard if instruction.negated else guard) & active
                if not taking.any():
                    counter += 1
                    continue
                if taking.sum() == active.sum():
                    taking = mask
            if instruction.opcode == "bra":
                target = self.kernel.labels[instruction.operands[0].name]
                if taking is mask:
                    counter = target
                    if counter > meeting:
                        break
                    continue
                self.counters[active] = counter + 1
                self.counters[taking if taking is not True else active] = target
                return
            if instruction.opcode in {"ret", "exit", "bar", "barrier"}:
                self._stop(instruction, active if taking is True else taking, counter + 1)
                if taking is mask:
                    return
                active = active & ~taking
                mask = active
            elif taking is True:
                self._at_line(instruction, lambda _, step=step: step(True))
            else:
                self._at_line(instruction, lambda _, step=step, taking=taking: step(taking))
            counter += 1
        self.counters[active] = counter

    def _stop(self, instruction: Instruction, threads: Array, following: int) -> None:
        ends = instruction.opcode in {"ret", "exit"}
        self.states[threads] = _DONE if ends else _WAITING
        self.counters[threads] = following

    def _pass_barriers(self) -> None:
        """Release the blocks: nobody in them runs any more."""
        waiting = self.states == _WAITING
        stopped = np.zeros(len(self.workgroup.epoch), bool)
        stopped[self.blocks[waiting]] = True
        late = stopped[self.blocks] & ~waiting
        place = int(self.counters[waiting].min()) - 1
        if late.any():
            thread = int(self.threads[late][0])
            message = f"thread {thread} ended, others wait for it"
            self._at_line(self.kernel.instructions[place], lambda _: _fail(message))
        for block in np.flatnonzero(stopped):
            places = self.counters[self.blocks == block]
            if (places != places[0]).any():
                at = self.kernel.instructions[int(places.max()) - 1]
                self._at_line(at, lambda _: _fail("threads of one block wait at different barriers"))
        self.workgroup.epoch[stopped] += 1
        self.states[waiting] = _RUNNING

    # Operands

    def source(self, operand: Operand, kind: str) -> Array:
        """Give a view of an operand; constants are scalars."""
        dtype = dtype_of(kind)
        if isinstance(operand, Register):
            return self._view(operand, dtype)
        if isinstance(operand, Immediate):
            if kind == "pred":
                return np.bool_(operand.bits)
            return np.array(operand.bits & (2 ** (8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype)[()]
        if isinstance(operand, Symbol) and operand.name in self.special:
            return self.special[operand.name].astype(dtype)
        if isinstance(operand, Symbol) and operand.name in self.workgroup.addresses:
            return dtype.type(self.workgroup.addresses[operand.name])
        raise PtxError(f"operand {operand} is not supported")

    def _view(self, register: Register, dtype: Any) -> Array:
        found = self.registers[register.name]
        if found.dtype.itemsize != dtype.itemsize or (found.dtype.kind == "b") != (dtype.kind == "b"):
            raise PtxError(f"{register.name} is a register of {found.dtype.itemsize} bytes, the type is {dtype}")
        return found.view(dtype)

    def target(self, operand: Operand, kind: str) -> Array:
        """Give a view of a register that an instruction writes."""
        if not isinstance(operand, Register):
            raise PtxError(f"{operand} is not a register")
        return self._view(operand, dtype_of(kind))

    def _parts(self, operand: Operand) -> tuple[Operand, ...]:
        return operand.parts if isinstance(operand, Pack) else (operand,)

    # Instructions

    def _prepare(self, instruction: Instruction) -> Step:
        opcode, modifiers = instruction.opcode, instruction.modifiers
        if opcode in {"bra", "ret", "exit"}:
            return _nothing
        if opcode in {"bar", "barrier"}:
            if "sync" not in modifiers or instruction.operands != (Immediate(0),):
                raise PtxError("only barrier 0 of all threads is supported")
            return _nothing
        if opcode in {"add", "addc", "sub", "subc"} and (opcode[-1] == "c" or "cc" in modifiers):
            return self._prepare_carry(instruction)
        if opcode in COMPUTED:
            return self._prepare_computed(instruction)
        builder = getattr(self, f"_prepare_{opcode}", None)
        if builder is None:
            raise PtxError(f"opcode {opcode} is not supported")
        return builder(instruction)

    def _prepare_computed(self, instruction: Instruction) -> Step:
        modifiers, kind = instruction.modifiers, instruction.kind
        unknown = set(modifiers[:-1]) - KNOWN_MODIFIERS
        if unknown:
            raise PtxError(f"modifiers {sorted(unknown)} are not supported")
        function = COMPUTED[instruction.opcode](modifiers)
        result = f"{kind[0]}{2 * int(kind[1:])}" if "wide" in modifiers else kind
        kinds = [kind, kind, result]
        if instruction.opcode in {"shl", "shr", "bfe", "shf"}:
            kinds = [kind, "u32", "u32"] if instruction.opcode != "shf" else [kind, kind, "u32"]
        out = self.target(instruction.operands[0], result)
        sources = [self.source(operand, k) for operand, k in zip(instruction.operands[1:], kinds, strict=False)]
        if isinstance(function, np.ufunc):
            return lambda mask: function(*sources, out=out, where=mask)
        if "ftz" in modifiers:
            return lambda mask: np.copyto(out, flush(function(*(flush(x) for x in sources))), where=mask)
        return lambda mask: np.copyto(out, function(*sources), where=mask)

    def _prepare_carry(self, instruction: Instruction) -> Step:
        kind = "u" + instruction.kind[1:]
        out = self.target(instruction.operands[0], kind)
        a, b = (self.source(operand, kind) for operand in instruction.operands[1:])
        takes, gives = instruction.opcode == "addc", "cc" in instruction.modifiers
        if instruction.opcode.startswith("sub"):
            raise PtxError("a difference with borrow is not supported")

        def step(mask: Mask) -> None:
            first = np.add(a, b, dtype=out.dtype)
            total = first + self.carry if takes else first
            over = (first < b) | (total < first)
            np.copyto(out, total, where=mask)
            if gives:
                np.copyto(self.carry, over, where=mask)

        return step

    def _prepare_mov(self, instruction: Instruction) -> Step:
        to, source = instruction.operands
        if isinstance(to, Pack) or isinstance(source, Pack):
            return self._prepare_pack(instruction)
        out, value = self.target(to, instruction.kind), self.source(source, instruction.kind)
        return lambda mask: np.copyto(out, value, where=mask)

    def _prepare_pack(self, instruction: Instruction) -> Step:
        """Move a pair of registers to one of twice the size, or back."""
        to, source = instruction.operands
        half = f"b{4 * TYPE_BYTES[instruction.kind]}"
        bits = np.uint64(4 * TYPE_BYTES[instruction.kind])
        if isinstance(to, Pack):
            value = self.source(source, instruction.kind)
            parts = [(k, part) for k, part in enumerate(to.parts) if part.name != "_"]
            outs = [(k, self.target(part, half)) for k, part in parts]

            def unpack(mask: Mask) -> None:
                whole = np.array(value, np.uint64)
                for k, out in outs:
                    np.copyto(out, (whole >> (bits * np.uint64(k))).astype(out.dtype), where=mask)

            return unpack
        out = self.target(to, instruction.kind)
        low, high = (self.source(part, half) for part in self._parts(source))
        return lambda mask: np.copyto(
            out, (np.asarray(low, np.uint64) | np.asarray(high, np.uint64) << bits).astype(out.dtype), where=mask
        )

    def _prepare_setp(self, instruction: Instruction) -> Step:
        kind = instruction.kind
        if len(instruction.modifiers) != 2 or len(instruction.operands) != 3:
            raise PtxError("a comparison combined with a predicate is not supported")
        function = comparison(instruction.modifiers[0], floating=kind[0] == "f")
        out = self.target(instruction.operands[0], "pred")
        a, b = (self.source(operand, kind) for operand in instruction.operands[1:])
        return lambda mask: np.copyto(out, function(a, b), where=mask)

    def _prepare_selp(self, instruction: Instruction) -> Step:
        kind = instruction.kind
        out = self.target(instruction.operands[0], kind)
        a, b = (self.source(operand, kind) for operand in instruction.operands[1:3])
        condition = self.source(instruction.operands[3], "pred")
        return lambda mask: np.copyto(out, np.where(condition, a, b), where=mask)

    def _prepare_cvt(self, instruction: Instruction) -> Step:
        *modifiers, to, kind = instruction.modifiers
        if set(modifiers) - {"rn", "rzi", "rni", "rmi", "rpi"}:
            raise PtxError(f"modifiers {modifiers} are not supported")
        out, value = self.target(instruction.operands[0], to), self.source(instruction.operands[1], kind)
        function = conversion(tuple(modifiers), dtype_of(to), dtype_of(kind))
        return lambda mask: np.copyto(out, function(np.asarray(value)), where=mask)

    def _prepare_cvta(self, instruction: Instruction) -> Step:
        if "global" not in instruction.modifiers:
            raise PtxError("only addresses of global memory are generic here")
        out, value = (self.source(operand, instruction.kind) for operand in instruction.operands)
        return lambda mask: np.copyto(out, value, where=mask)

    # Memory

    def _address(self, operand: Operand) -> tuple[Array, int]:
        if not isinstance(operand, Address):
            raise PtxError(f"{operand} is not an address")
        if isinstance(operand.base, Symbol):
            return np.full(self.count, self.workgroup.addresses[operand.base.name]), operand.offset
        found = self.registers[operand.base.name]
        return found.view(np.int64) if found.dtype.itemsize == 8 else found, operand.offset

    def _prepare_ld(self, instruction: Instruction) -> Step:
        if "param" in instruction.modifiers:
            return self._prepare_parameter(instruction)
        outs = [self.target(part, instruction.kind) for part in self._parts(instruction.operands[0])]
        base, offset = self._address(instruction.operands[1])
        # The padding of a vector may be loaded into registers that nobody reads.
        used = [k for k, part in enumerate(self._parts(instruction.operands[0])) if part.name in self._read]
        access = self._access(instruction, len(outs), used)
        constant = "nc" in instruction.modifiers

        def step(mask: Mask) -> None:
            taking = self.threads if mask is True else np.flatnonzero(mask)
            words, data = access(base[taking].astype(np.int64) + offset, taking, writes=False, constant=constant)
            for k, out in enumerate(outs):
                out[taking] = data.view(out.dtype)[words // (out.itemsize // WORD) + k]

        return step

    def _prepare_st(self, instruction: Instruction) -> Step:
        values = [self.source(part, instruction.kind) for part in self._parts(instruction.operands[1])]
        base, offset = self._address(instruction.operands[0])
        access = self._access(instruction, len(values), range(len(values)))

        def step(mask: Mask) -> None:
            taking = self.threads if mask is True else np.flatnonzero(mask)
            words, data = access(base[taking].astype(np.int64) + offset, taking, writes=True, constant=False)
            for k, value in enumerate(values):
                stored = data.view(value.dtype)
                stored[words // (value.itemsize // WORD) + k] = value[taking] if np.ndim(value) else value

        return step

    def _access(self, instruction: Instruction, count: int, used: Sequence[int]) -> Callable[..., tuple[Array, Array]]:
        """Give the check of a load or store, which gives word numbers and the words."""
        per_part = TYPE_BYTES[instruction.kind] // WORD
        used_words = [part * per_part + k for part in used for k in range(per_part)]
        if TYPE_BYTES[instruction.kind] < WORD:
            raise PtxError(f"an access of {TYPE_BYTES[instruction.kind]} bytes is not supported")
        size = TYPE_BYTES[instruction.kind] * count
        if "global" in instruction.modifiers:

            def reach(addresses: Array, taking: Array, *, writes: bool, constant: bool) -> tuple[Array, Array]:
                words = self.memory.locate(addresses, size)
                for k in used_words:
                    if writes:
                        self.memory.check_write(words + k, taking)
                    else:
                        self.memory.check_read(words + k, taking, constant=constant)
                return words, self.memory.words

            return reach
        if "shared" not in instruction.modifiers:
            raise PtxError("only global and workgroup memory are supported")

        def reach_workgroup(addresses: Array, taking: Array, *, writes: bool, constant: bool) -> tuple[Array, Array]:
            blocks = self.blocks[taking]
            words = self.workgroup.locate(addresses, size, blocks)
            check = self.workgroup.check_write if writes else self.workgroup.check_read
            for k in used_words:
                check(words + k, taking, blocks)
            return words, self.workgroup.words

        return reach_workgroup

    def _prepare_parameter(self, instruction: Instruction) -> Step:
        address = instruction.operands[1]
        if not isinstance(address, Address) or address.offset or TYPE_BYTES[instruction.kind] != 8:
            raise PtxError("only whole parameters of 64 bits are supported")
        value = np.int64(self.arguments[address.base.name])
        out = self.target(instruction.operands[0], "s64")
        return lambda mask: np.copyto(out, value, where=mask)

    # Collectives

    def _converged(self, mask: Mask) -> None:
        """Check that no thread of a warp is elsewhere."""
        if mask is not True:
            present = np.zeros(int(self.warps[-1]) + 1, bool)
            present[self.warps[mask]] = True
            if (present[self.warps] & ~mask).any():
                raise PtxError("a part of a warp executes an instruction of the whole warp")

    def _prepare_vote(self, instruction: Instruction) -> Step:
        """`vote.sync.any.pred` and `.all`."""
        mode = instruction.modifiers[1]
        if mode not in {"any", "all"} or instruction.operands[2] != Immediate(-1):
            raise PtxError("only votes of any or all of a whole warp are supported")
        out, value = (self.source(operand, "pred") for operand in instruction.operands[:2])

        def step(mask: Mask) -> None:
            self._converged(mask)
            agreed = np.bincount(self.warps, weights=value == (mode == "any"))[self.warps] > 0
            np.copyto(out, agreed if mode == "any" else ~agreed, where=mask)

        return step

    def _prepare_shfl(self, instruction: Instruction) -> Step:
        """`shfl.sync.bfly`, `.down` and `.idx` in whole warps."""
        mode = instruction.modifiers[1]
        distances = {"bfly": np.bitwise_xor, "down": np.add, "idx": lambda lane, other: lane * 0 + other}
        if mode not in distances or instruction.operands[-1] != Immediate(-1) or len(instruction.operands) != 5:
            raise PtxError("this shuffle is not supported")
        out, value = (self.source(operand, "b32") for operand in instruction.operands[:2])
        by = self.source(instruction.operands[2], "s32")
        lanes = self.special["%laneid"]

        def step(mask: Mask) -> None:
            self._converged(mask)
            other = distances[mode](lanes, by)
            other = np.where(other < _WARP, other, lanes)
            np.copyto(out, value[self.threads - lanes + other], where=mask)

        return step


def _storage(kind: str) -> Any:
    return np.dtype(bool) if kind == "pred" else np.dtype(f"u{TYPE_BYTES[kind]}")


def _registers_read(instruction: Instruction) -> set[str]:
    """Name the registers whose values an instruction uses."""
    writes = instruction.opcode not in {"st", "bra", "bar", "ret", "exit"}
    pending, found = list(instruction.operands[1 if writes else 0 :]), {instruction.guard}
    while pending:
        operand = pending.pop()
        if isinstance(operand, Register):
            found.add(operand.name)
        elif isinstance(operand, Address):
            pending.append(operand.base)
        elif isinstance(operand, Pack):
            pending += operand.parts
    return found


def _nothing(_: Mask) -> None:
    return


def _fail(message: str) -> None:
    raise PtxError(message)
