"""What a plan does and costs, in words and tables: the report behind `thex explain`."""

import math
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from he_runtime.cost import stage_costs
from he_runtime.parameters import MAXIMUM_MODULUS_BITS_128, RING_DEGREES, levels_offered
from he_runtime.plan import MOST_KEY_BYTES, Plan
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element
from he_runtime.wire.answers import answer_bytes
from he_runtime.wire.sizes import evaluation_key_bytes, input_ciphertext_bytes, result_ciphertext_bytes

MEGABYTE = 1e6


def explain(plan: Plan) -> dict[str, object]:
    """One JSON-ready object: parameters, levels, keys with sizes, and for every bucket its stages and its bytes."""
    parameters = plan.parameters
    steps = _steps_of(plan)
    keys = [
        {
            "galois_element": element,
            "step": steps[element],
            "level": level,
            "bytes": evaluation_key_bytes(parameters, level),
        }
        for element, level in sorted(plan.keys.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {
        "levels": plan.levels,
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 1),
        "modulus_bits_allowed": MAXIMUM_MODULUS_BITS_128.get(parameters.ring_degree),
        "prime_bits": [round(math.log2(prime), 2) for prime in parameters.primes],
        "special_prime_bits": [round(math.log2(prime), 2) for prime in parameters.special_primes],
        "digit_size": parameters.digit_size,
        "scale_bits": parameters.scale_bits,
        "does_not_fit": list(plan.refusals),
        "lowering": plan.lowering,
        "baby_steps": plan.chosen.baby_steps,
        "alternatives": [
            {**vars(alternative), "chosen": alternative == plan.chosen} for alternative in plan.alternatives
        ],
        "levels_offered": {str(degree): levels_offered(degree) for degree in RING_DEGREES},
        "keys": keys,
        "key_bytes": sum(evaluation_key_bytes(parameters, level) for level in plan.keys.values()),
        "program_digest": plan.digest,
        "buckets": {str(bucket): _bucket(plan, bucket) for bucket in plan.programs},
    }


def _bucket(plan: Plan, bucket: int) -> dict[str, object]:
    program = plan.programs[bucket]
    stages = [vars(cost) for cost in stage_costs(program)]
    period = plan.client_plan().answer_period
    return {
        "ciphertexts_per_tensor": len({name.partition(".")[2] for name in program.inputs}),
        "ciphertexts_up": len(program.inputs),
        "ciphertexts_down": len(program.outputs),
        "bytes_up": sum(input_ciphertext_bytes(plan.parameters, value.level) for value in program.inputs.values()),
        "bytes_down": sum(
            answer_bytes(plan.parameters, period) if period else result_ciphertext_bytes(plan.parameters, value.level)
            for value in program.outputs.values()
        ),
        "operations": len(program.operations),
        "keys": len(program.keys),
        "stages": stages,
        "rotations": sum(cost.rotations for cost in stage_costs(program)),
        "ciphertext_products": sum(cost.ciphertext_products for cost in stage_costs(program)),
        "plaintext_products": sum(cost.plaintext_products for cost in stage_costs(program)),
        "estimated_milliseconds_one_thread": round(sum(cost.milliseconds for cost in stage_costs(program))),
    }


def _steps_of(plan: Plan) -> dict[int, int | str]:
    steps: dict[int, int | str] = {RELINEARISATION: "relinearise", conjugation_element(plan.parameters): "conjugate"}
    slots = plan.parameters.slots
    for program in plan.programs.values():
        for operation in program.operations:
            for step in (*operation.steps, operation.giant_step):
                signed = step if step <= slots // 2 else step - slots
                steps[galois_element(step, plan.parameters)] = signed
    return steps


def render(report: dict[str, object], bucket: int) -> Group:
    """The report of one bucket for a terminal."""
    buckets = report["buckets"]
    keys = report["keys"]
    if not isinstance(buckets, dict) or not isinstance(keys, list):
        raise TypeError("render takes what explain returns")
    chosen = buckets[str(bucket)]
    head = Text()
    head.append(
        f"{report['levels']} levels; N={report['ring_degree']}, log2(QP)={report['modulus_bits']} of "
        f"{report['modulus_bits_allowed']} bits allowed (128-bit security, ePrint 2024/463 table 5.2)\n"
    )
    for line in report["does_not_fit"] if isinstance(report["does_not_fit"], list) else []:
        head.append(f"does not fit  {line}\n", style="yellow")
    for alternative in report["alternatives"] if isinstance(report["alternatives"], list) else []:
        if alternative["chosen"]:
            head.append(f"lowering      {_way(alternative)}\n")
        else:
            costs = alternative["milliseconds"]
            reason = alternative["refusal"]
            if costs:
                megabytes = alternative["key_bytes"] / MEGABYTE
                reason = f"an estimated {costs[bucket]:.0f} ms for this bucket, keys of {megabytes:.0f} MB"
                if alternative["key_bytes"] > MOST_KEY_BYTES:
                    reason += f", more than {MOST_KEY_BYTES / MEGABYTE:.0f}"
            head.append(
                f"rejected      {_way(alternative)}, {alternative['levels']} levels: {reason}\n",
                style="yellow",
            )
    head.append(f"chain         {_bits(report['prime_bits'])} | special {_bits(report['special_prime_bits'])} bits\n")
    head.append(
        f"bucket {bucket}: {chosen['ciphertexts_per_tensor']} ciphertext(s) a tensor, {chosen['ciphertexts_up']} up "
        f"({chosen['bytes_up'] / MEGABYTE:.2f} MB), {chosen['ciphertexts_down']} down "
        f"({chosen['bytes_down'] / MEGABYTE:.2f} MB), {chosen['keys']} of {len(keys)} keys\n"
    )
    stage_table = _table("stage", "levels", "rotations", "ct x ct", "relin", "ct x pt", "rescale", "est. ms")
    for stage in chosen["stages"]:
        stage_table.add_row(
            stage["stage"],
            f"{stage['level_in']} to {stage['level_out']}",
            *(str(stage[name]) for name in ("rotations", "ciphertext_products", "relinearisations")),
            *(str(stage[name]) for name in ("plaintext_products", "rescales")),
            f"{stage['milliseconds']:.0f}",
        )
    stage_table.add_row(
        "all",
        "",
        str(chosen["rotations"]),
        str(chosen["ciphertext_products"]),
        "",
        str(chosen["plaintext_products"]),
        "",
        str(chosen["estimated_milliseconds_one_thread"]),
    )
    key_table = _table("level", "keys", "rotation steps", "MB")
    by_level: dict[int, list[dict[str, object]]] = {}
    for key in keys:
        by_level.setdefault(key["level"], []).append(key)
    for level, group in by_level.items():
        size = sum(int(str(key["bytes"])) for key in group)
        key_table.add_row(
            str(level), str(len(group)), ", ".join(str(key["step"]) for key in group), f"{size / MEGABYTE:.1f}"
        )
    key_table.add_row("all", str(len(keys)), "", f"{int(str(report['key_bytes'])) / MEGABYTE:.1f}")
    return Group(head, stage_table, key_table)


def _way(alternative: dict[str, Any]) -> str:
    """A lowering and what was chosen of it, in words."""
    words = str(alternative["name"])
    if alternative["baby_steps"]:
        words += f", {alternative['baby_steps']} baby steps"
    if alternative["hoisted_steps"]:
        words += f", {alternative['hoisted_steps']} rotations hoisted"
    return words


def _bits(values: object) -> str:
    return " ".join(f"{value:.0f}" for value in values) if isinstance(values, list) else ""


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in ("stage", "rotation steps") else "right")
    return table
