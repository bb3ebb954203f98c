"""What kernels that write their vectors out have in common: LLVM's code for eight float64 entries at a time, portable.

A compiler vectorises innermost loops only. Where the sum over rows is innermost, so that it stays in registers, the entries that
would be a vector's lanes lie one loop further out.
"""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from he_runtime.kernels.arithmetic import ROUNDING

LANES = 8
VECTOR = ir.VectorType(ir.DoubleType(), LANES)


@dataclass(frozen=True)
class VectorCode:
    """Writes operations on vectors into an intrinsic's function: its arguments are those of numba's `codegen`."""

    context: Any
    builder: Any
    signature: Any
    arguments: Any

    def data(self, argument: int) -> Any:
        """Address of the first entry of an array that is given as that argument."""
        array = self.context.make_array(self.signature.args[argument])
        return array(self.context, self.builder, self.arguments[argument]).data

    @property
    def zero(self) -> Any:
        """A vector of zeros."""
        return ir.Constant(VECTOR, [0.0] * LANES)

    def splat(self, value: Any) -> Any:
        """A vector of one value."""
        undefined = ir.Constant(VECTOR, ir.Undefined)
        single = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(single, undefined, lanes)

    def load(self, base: Any, start: Any, k: int) -> Any:
        """The k-th vector from entry `start` on."""
        return self.builder.load(self._place(base, start, k), align=8)

    def store(self, value: Any, base: Any, start: Any, k: int) -> None:
        """Write the k-th vector from entry `start` on."""
        self.builder.store(value, self._place(base, start, k), align=8)

    def entry(self, base: Any, index: Any) -> Any:
        """One entry in all lanes."""
        return self.splat(self.builder.load(self.builder.gep(base, [index])))

    def variable(self, value: Any) -> Any:
        """A vector that loops change, in a register where there are enough."""
        return cgutils.alloca_once_value(self.builder, value)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, rounded once."""
        return self.builder.call(self._function("fma", 3), [a, b, c])

    def reduced(self, a: Any, p: Any, inverse_p: Any) -> Any:
        """a modulo p, nearest to zero: |a/p| below 2^51 (see `arithmetic.nearest_product`)."""
        rounding = ir.Constant(VECTOR, [ROUNDING] * LANES)
        quotient = self.builder.fsub(self.fma(a, inverse_p, rounding), rounding)
        return self.fma(self.builder.fneg(quotient), p, a)

    def _place(self, base: Any, start: Any, k: int) -> Any:
        address = self.builder.gep(base, [self.builder.add(start, ir.Constant(start.type, LANES * k))])
        return self.builder.bitcast(address, VECTOR.as_pointer())

    def _function(self, name: str, operands: int) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * operands)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}f64")
