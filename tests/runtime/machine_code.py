"""Small kernels in LLVM IR, compiled here, so that the runtime is tested without our compiler."""

import textwrap

import llvmlite.binding as llvm

from pylazy.runtime.kernel import Buffer, KernelImage, Phase
from pylazy.runtime.launch import host_target

CODE_ALIGNMENT = 64

# Each body computes row %row of split %split; %first and %last are its columns, %p0.. the buffers.
MULTIPLY_ADD = """
    {columns}
    %x = load double, ptr %px
    %py = getelementptr double, ptr %p1, i64 %column
    %y = load double, ptr %py
    %product = fmul double %x, %y
    %old = load double, ptr %sum
    %new = fadd double %old, %product
    store double %new, ptr %sum
    {next_column}
    %total = load double, ptr %sum
    %single = icmp eq i64 %splits, 1
    %base = select i1 %single, ptr %p2, ptr %p3
    %slot0 = mul i64 %split, %rows
    %slot = add i64 %slot0, %row
    %target = getelementptr double, ptr %base, i64 %slot
    store double %total, ptr %target
"""
MERGE = """
    %limit = add i64 %splits, 0
    br label %merge
  merge:
    %s = phi i64 [ 0, %row_body ], [ %s_next, %merge ]
    %acc = phi double [ 0.0, %row_body ], [ %acc_next, %merge ]
    %slot0 = mul i64 %s, %rows
    %slot = add i64 %slot0, %row
    %source = getelementptr double, ptr %p3, i64 %slot
    %part = load double, ptr %source
    %acc_next = fadd double %acc, %part
    %s_next = add i64 %s, 1
    %more = icmp slt i64 %s_next, %limit
    br i1 %more, label %merge, label %merged
  merged:
    %target = getelementptr double, ptr %p2, i64 %row
    store double %acc_next, ptr %target
"""
COUNT_VISITS = """
    %target = getelementptr i64, ptr %p0, i64 %row
    %old = load i64, ptr %target
    %new = add i64 %old, 1
    store i64 %new, ptr %target
"""
# Burns about 100 us, then stores the thread pointer: an identity of the thread without a call.
RECORD_THREAD = """
    %target = getelementptr i64, ptr %p0, i64 %row
    br label %burn
  burn:
    %n = phi i64 [ 0, %row_body ], [ %n_next, %burn ]
    store volatile i64 %n, ptr %target
    %n_next = add i64 %n, 1
    %more = icmp slt i64 %n_next, 200000
    br i1 %more, label %burn, label %burnt
  burnt:
    %thread = call i64 asm sideeffect "{thread_pointer}", "=r"()
    store i64 %thread, ptr %target
"""
COPY_IN = """
    %source = getelementptr i64, ptr %p0, i64 %row
    %value = load i64, ptr %source
    %target = getelementptr i64, ptr %p2, i64 %row
    store i64 %value, ptr %target
"""
COPY_OUT = """
    %source = getelementptr i64, ptr %p2, i64 %row
    %value = load i64, ptr %source
    %target = getelementptr i64, ptr %p1, i64 %row
    store i64 %value, ptr %target
"""
STORE_SCRATCH_ADDRESS = """
    %address = ptrtoint ptr %p1 to i64
    %target = getelementptr i64, ptr %p0, i64 %row
    store i64 %address, ptr %target
"""

COLUMN_LOOP = {
    "columns": """
    store double 0.0, ptr %sum
    %px = getelementptr double, ptr %p0, i64 %row
    br label %column_head
  column_head:
    %column = phi i64 [ %first, %row_body ], [ %column_next, %column_body ]
    %has_column = icmp slt i64 %column, %last
    br i1 %has_column, label %column_body, label %column_end
  column_body:""",
    "next_column": """
    %column_next = add i64 %column, 1
    br label %column_head
  column_end:""",
}


def compile_entry(body: str, *, buffers: int, rows_per_tile: int) -> bytes:
    """Machine code of an entry that runs `body` for every row of its tiles."""
    is_arm = host_target() == "aarch64"
    body = body.format(**COLUMN_LOOP, thread_pointer="mrs $0, tpidr_el0" if is_arm else "movq %fs:0, $0")
    last_block = [line.strip()[:-1] for line in body.splitlines() if line.rstrip().endswith(":")]
    pointers = "\n".join(
        f"%a{k} = getelementptr ptr, ptr %pointers, i64 {k}\n%p{k} = load ptr, ptr %a{k}" for k in range(buffers)
    )
    ir = f"""
    define void @entry(ptr %pointers, ptr %extents, i64 %begin, i64 %end) {{
    entry:
      %sum = alloca double
      {pointers}
      %rows = load i64, ptr %extents
      %e1 = getelementptr i64, ptr %extents, i64 1
      %columns = load i64, ptr %e1
      %e2 = getelementptr i64, ptr %extents, i64 2
      %columns_per_split = load i64, ptr %e2
      %e3 = getelementptr i64, ptr %extents, i64 3
      %splits = load i64, ptr %e3
      %merged_splits = add i64 {"1" if body.lstrip().startswith("%limit") else "%splits"}, 0
      br label %tile_head
    tile_head:
      %tile = phi i64 [ %begin, %entry ], [ %tile_next, %tile_end ]
      %has_tile = icmp slt i64 %tile, %end
      br i1 %has_tile, label %tile_body, label %done
    tile_body:
      %row_tile = sdiv i64 %tile, %merged_splits
      %split = srem i64 %tile, %merged_splits
      %first = mul i64 %split, %columns_per_split
      %last0 = add i64 %first, %columns_per_split
      %short = icmp slt i64 %columns, %last0
      %last = select i1 %short, i64 %columns, i64 %last0
      %row0 = mul i64 %row_tile, {rows_per_tile}
      %row_last0 = add i64 %row0, {rows_per_tile}
      %row_short = icmp slt i64 %rows, %row_last0
      %row_last = select i1 %row_short, i64 %rows, i64 %row_last0
      br label %row_head
    row_head:
      %row = phi i64 [ %row0, %tile_body ], [ %row_next, %{last_block[-1] if last_block else "row_body"} ]
      %has_row = icmp slt i64 %row, %row_last
      br i1 %has_row, label %row_body, label %tile_end
    row_body:
      {textwrap.dedent(body)}
      %row_next = add i64 %row, 1
      br label %row_head
    tile_end:
      %tile_next = add i64 %tile, 1
      br label %tile_head
    done:
      ret void
    }}
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    module = llvm.parse_assembly(ir)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small", opt=2)
    compiled = llvm.ObjectFileRef.from_data(machine.emit_object(module))
    sections = {section.name(): bytes(section.data()) for section in compiled.sections() if section.name()}
    assert not any(bytes(name).startswith(b".rela.text") for name in sections), "the test kernel is not self-contained"
    return sections[b".text"] if b".text" in sections else sections[b"__text"]


def make_image(
    entries: list[tuple[Phase, str]], buffers: tuple[Buffer, ...], provenance: dict[str, str] | None = None
) -> KernelImage:
    """An image of several entries; the phases' own `entry` is replaced."""
    code = b""
    phases = []
    for phase, body in entries:
        code += b"\0" * (-len(code) % CODE_ALIGNMENT)
        fields = {**phase._asdict(), "entry": len(code)}
        code += compile_entry(body, buffers=len(buffers), rows_per_tile=phase.rows_per_tile)
        phases.append(Phase(**fields))
    return KernelImage(host_target(), code, buffers, tuple(phases), provenance or {"made by": "a test"})


def make_phase(name: str, **changes: object) -> Phase:
    """A phase over rows i, a map unless `changes` say otherwise."""
    fields: dict[str, object] = {
        "entry": 0,
        "name": name,
        "rows": "i",
        "columns": "",
        "rows_per_tile": 1,
        "splittable": False,
        "merges": False,
        "cost": 1.0,
        "max_columns_per_split": 0,
    }
    return Phase(**{**fields, **changes})  # type: ignore[arg-type]


def make_product_sum(
    *, rows_per_tile: int = 4, cost: float = 4.0, splittable: bool = True, limit: int = 0
) -> KernelImage:
    """out_i = sum_j x_i y_j in float64: inputs x, y, output, and partial sums where the columns are split."""
    buffers = (
        Buffer("x", "input", "i", "float64", 1),
        Buffer("y", "input", "j", "float64", 1),
        Buffer("out", "output", "i", "float64", 1),
        Buffer("partial", "scratch", "i", "float64", 1, per_split=True),
    )
    entries = [
        (
            make_phase(
                "sum",
                columns="j",
                rows_per_tile=4,
                splittable=splittable,
                cost=cost,
                max_columns_per_split=limit,
            ),
            MULTIPLY_ADD,
        )
    ]
    if splittable:
        entries.append((make_phase("merge", rows_per_tile=2, merges=True), MERGE))
    return make_image(entries, buffers)
