"""The `pylazy` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pylazy
from pylazy.runtime.errors import PylazyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Each command imports what it needs when it runs: `pylazy --help` loads no compiler, and no rich.
app = typer.Typer(help=pylazy.__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
cache_app = typer.Typer(help="The kernels on disk.", rich_markup_mode=None)
app.add_typer(cache_app, name="cache")

BundleFile = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a file that `pylazy compile` wrote")]
Json = Annotated[bool, typer.Option("--json", help="write JSON, for programs")]
Trust = Annotated[bool, typer.Option("--trust", help="run the file's code whoever may have written it")]
Hash = Annotated[str | None, typer.Option("--sha256", help="the hash that the file must have")]
PublicKey = Annotated[
    Path | None, typer.Option("--public-key", metavar="PEM", help="the key that must have signed the file")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the command; by default those of the process.

    Returns:
        0 when all went well, 1 when it failed, 2 for a command line that says nothing sensible.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pylazy")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (PylazyError, OSError) as error:
        # The user's line, with which messages end, is in a terminal a line of typer.
        sys.stderr.write(f"pylazy: {str(error).split(chr(10) + '  at ')[0]}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("pylazy: interrupted\n")
        return 1
    return 0


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"pylazy {pylazy.__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _pylazy(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001, the callback reads it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="where the picture goes")] = Path(),
    quick: Annotated[bool, typer.Option("--quick", help="less data: a second or two")] = False,
) -> None:
    """Do real work on real data, beside dense NumPy, with a picture.

    Quantise the colours of a photograph, classify handwritten digits, compare with dense NumPy.
    """
    from pylazy.demos.run import run_demo

    run_demo(output, quick=quick)


@app.command("compile")
def compile_command(
    formulas: Annotated[Path, typer.Argument(metavar="FORMULAS.toml", help="a table for each function")],
    target: Annotated[
        list[str] | None,
        typer.Option("-t", "--target", help="x86-64, x86-64-v3, x86-64-v4, aarch64, sm_80, ...; default: all CPUs"),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the bundle; C files are named after it")] = Path(
        "kernels.plzb"
    ),
    emit: Annotated[str, typer.Option(help="some of bundle,header,source,static,shared")] = "bundle",
    json: Json = False,
) -> None:
    """Compile formulas ahead of time, for machines that need not be this one. No Python in the file is executed."""
    from pylazy.commands.compile_formulas import compile_formulas

    compile_formulas(formulas, targets=target or (), output=output, emit=emit.split(","), as_json=json)


@app.command()
def explain(
    formulas: Annotated[Path, typer.Argument(metavar="FORMULAS.toml", help="a table for each function")],
    target: Annotated[str, typer.Option("-t", "--target", help="x86-64-v4, sm_90, ...; default: this machine")] = "",
    output: Annotated[Path, typer.Option("-o", "--output", help="the page")] = Path("report.html"),
    json: Json = False,
) -> None:
    """Write a page about how formulas are compiled: every pass and what it changed, schedule, times, instructions."""
    from pylazy.commands.explain_formulas import explain_formulas

    explain_formulas(formulas, target=target, output=output, as_json=json)


@app.command()
def inspect(
    bundle: BundleFile,
    ir: Annotated[bool, typer.Option("--ir", help="write the kernels as MLIR, at both levels")] = False,
    asm: Annotated[str, typer.Option(metavar="TARGET", help="write the code for a target as text")] = "",
    why: Annotated[bool, typer.Option("--why", help="say which code this machine takes")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="check every image, and say whether it is signed")] = False,
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Show what is in a bundle, which may come from anybody: none of its code is mapped or run."""
    from pylazy.commands.inspect_bundle import inspect_bundle

    inspect_bundle(bundle, ir=ir, asm=asm, why=why, verify=verify, public_key=public_key, as_json=json)


@app.command()
def sign(
    bundle: BundleFile,
    key: Annotated[Path, typer.Option("--key", metavar="PEM", help="an Ed25519 private key")],
) -> None:
    """Sign a bundle: the signature is written beside it, as BUNDLE.sig."""
    from pylazy.commands.sign_bundle import sign_file

    sign_file(bundle, key=key)


@app.command()
def run(
    bundle: BundleFile,
    function: Annotated[str, typer.Argument(help="its name, where the bundle has several")] = "",
    arg: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE.npy", help="an array, or a number")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="where the result goes, as .npy")] = None,
    trust: Trust = False,
    sha256: Hash = None,
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Call a function of a bundle on arrays from files."""
    from pylazy.bundling.bundled_functions import load_bundle
    from pylazy.commands.run_bundle import run_bundle

    run_bundle(
        load_bundle(bundle, trust=trust, sha256=sha256, public_key=public_key),
        name=function,
        arguments=arg or (),
        output=output,
        as_json=json,
    )


@app.command()
def bench(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="a file that `pylazy compile` wrote; default: usual reductions"),
    ] = None,
    function: Annotated[str, typer.Argument(help="its name; default: all")] = "",
    rows: Annotated[int | None, typer.Option("-m", min=1, help="M, for a bundle; default: 10,000")] = None,
    columns: Annotated[int | None, typer.Option("-n", min=1, help="N, for a bundle; default: 10,000")] = None,
    peers: Annotated[str, typer.Option(metavar="A,B", help="packages to compare with; default: the usual ones")] = "",
    case: Annotated[str, typer.Option(metavar="TEXT", help="only reductions with this in their name")] = "",
    points: Annotated[int | None, typer.Option(min=1, help="M = N, without a bundle; default: 10,000")] = None,
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="only float32 or float64")] = "",
    repeats: Annotated[int | None, typer.Option(min=1, help="runs of each, without a bundle; default: 5")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="STEM", help="write STEM.json, STEM.svg and STEM.png")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="check and time on an NVIDIA GPU: pylazy gpu-check")] = False,
    trust: Trust = False,
    sha256: Hash = None,
    json: Json = False,
) -> None:
    """Time usual reductions beside other packages, with a roofline picture; or the functions of a bundle.

    A bundle's functions are timed on random data, at every CPU level that this machine has.
    """
    if gpu:
        alone = {"BUNDLE": bundle, "-m": rows, "-n": columns, "--peers": peers, "--dtype": dtype, "--json": json}
        _refuse(alone | {"--trust": trust, "--sha256": sha256}, "is not for --gpu: see pylazy gpu-check --help")
        from pylazy.gpu_check.__main__ import check_gpu
        from pylazy.gpu_check.run import Request

        defaults = Request()
        request = Request(
            only=case,
            points=points or defaults.points,
            repeats=repeats or defaults.repeats,
            output=output or defaults.output,
        )
        raise typer.Exit(check_gpu(request))
    if bundle is None:
        _refuse({"-m": rows, "-n": columns, "--trust": trust, "--sha256": sha256}, "is for a bundle: name one")
        from pylazy.commands.bench_peers import bench_peers

        all_right = bench_peers(
            peers=peers,
            case=case,
            points=points or 10_000,
            dtype=dtype,
            repeats=repeats or 5,
            output=output,
            as_json=json,
        )
        if not all_right:
            raise typer.Exit(1)
        return
    alone = {"--peers": peers, "--case": case, "--points": points, "--dtype": dtype}
    _refuse(alone | {"--repeats": repeats, "--output": output}, "is not for a bundle: leave the bundle or this out")
    from pylazy.commands.bench_bundle import bench_bundle

    sizes = {"rows": rows or 10_000, "columns": columns or 10_000}
    bench_bundle(bundle, name=function, **sizes, trust=trust, sha256=sha256, as_json=json)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuse options that were given and say nothing here."""
    for name, value in options.items():
        if value:
            raise typer.BadParameter(f"{name} {why}")


_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


@app.command("gpu-check", add_help_option=False, context_settings=_PASSED_ON)
def gpu_check(context: typer.Context) -> None:
    """Check every reduction on an NVIDIA GPU and time the usual ones; the same as python -m pylazy.gpu_check."""
    from pylazy.gpu_check.__main__ import main as run_gpu_check

    raise typer.Exit(run_gpu_check(context.args))


@app.command()
def info(json: Json = False) -> None:
    """Show versions, devices, caches, what is off and why: a block to paste into an issue."""
    from pylazy.commands.show_info import show_info

    show_info(as_json=json)


@cache_app.command("ls")
def cache_list(json: Json = False) -> None:
    """List the kernels."""
    from pylazy.commands.manage_cache import list_cache

    list_cache(as_json=json)


@cache_app.command("verify")
def cache_verify() -> None:
    """Read every kernel and check its hash."""
    from pylazy.commands.manage_cache import verify_cache

    if not verify_cache():
        raise typer.Exit(1)


@cache_app.command("prune")
def cache_prune(days: Annotated[float, typer.Option(min=0, help="keep what is younger")] = 90.0) -> None:
    """Remove old kernels and those that cannot be used."""
    from pylazy.commands.manage_cache import prune_cache

    prune_cache(days=days)


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove every kernel."""
    from pylazy.commands.manage_cache import clear_cache

    clear_cache()


@app.command("opt", add_help_option=False, context_settings=_PASSED_ON)
def opt(context: typer.Context) -> None:
    """Run passes on MLIR text; the same as pylazy-opt."""
    from pylazy.compiler.opt import main as run_opt

    raise typer.Exit(run_opt(context.args))


if __name__ == "__main__":
    sys.exit(main())
