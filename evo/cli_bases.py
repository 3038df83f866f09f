"""The commands about the kernels that can be tuned."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from evo.cli_options import (
    NOTHING_VALID,
    CaseOption,
    CausalOption,
    DtypeOption,
    JsonOption,
    answer,
    check_count,
    print_json,
)
from evo.cli_usage import Group

bases_app = typer.Typer(cls=Group, help="The kernels that can be tuned.", no_args_is_help=True)


@bases_app.command("list")
def bases_list(as_json: JsonOption = False) -> None:
    """List the bases.

    Example: evo bases list
    """
    from evo import present
    from evo.base import base_paths, load_base

    rows = []
    for name, path in base_paths().items():
        base = load_base(path)
        rows.append(
            {
                "name": name,
                "target": base.language,
                "workload": base.workload,
                "knobs": len(base.knobs),
                "doc": base.doc,
            }
        )
    answer(rows, present.print_rows, as_json=as_json)


@bases_app.command("show")
def bases_show(
    name: Annotated[str, typer.Argument(help="A base's name or YAML.")],
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: Annotated[str, typer.Option(help="Device facts for the rules.", show_default="sm_89 for CUDA")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show a base's knobs, rules and number of admissible configurations.

    Example: evo bases show phase4 --arch sm_90
    """
    from evo import present
    from evo.inspect import describe_base

    document = describe_base(name, case=case, dtype=dtype, causal=causal, arch=arch)
    answer(document, present.print_base, as_json=as_json)


@bases_app.command("check")
def bases_check(
    name: Annotated[str, typer.Argument(help="A base's name or YAML.")],
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: Annotated[str, typer.Option(help="Build for this architecture.", show_default="sm_89 for CUDA")] = "",
    places: Annotated[int, typer.Option(help="Configurations around which values are compared.")] = 6,
    as_json: JsonOption = False,
) -> None:
    """Prove that every value of every knob changes the binary; name dead knobs and duplicate programs.

    Example: evo bases check phase4 --arch sm_90
    """
    from evo import present
    from evo.inspect import check_base

    check_count("--places", places)
    report = check_base(name, case=case, dtype=dtype, causal=causal, arch=arch, places=places)
    if as_json:
        print_json(asdict(report))
    else:
        present.print_live(report)
    if not report.holds:
        sys.exit(NOTHING_VALID)
